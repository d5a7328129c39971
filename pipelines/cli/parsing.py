"""Every verb with its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pipelines.cli import verbs


def parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    top = argparse.ArgumentParser(
        prog="tandem",
        description="Train one model in TensorFlow and PyTorch, deploy it to five runtimes, prove that they agree.",
        epilog="Settings come from TANDEM_* variables; `tandem settings` lists them.",
    )
    subparsers = top.add_subparsers(metavar="verb", required=True)

    def add(verb: Callable[..., int | None], help: str, *groups: str) -> argparse.ArgumentParser:
        own = subparsers.add_parser(verb.__name__, help=help, description=help)
        own.set_defaults(verb=verb)
        if "version" in groups:
            own.add_argument("model", nargs="?", help="folder in models/ (default: fashion)")
            own.add_argument("version", nargs="?", type=int, help="default: the published one")
        else:
            own.add_argument("--model", help="folder in models/ (default: fashion)")
        if "making" in groups:
            own.add_argument("--profile", help="how long to train: one of the model's (default: quick)")
            own.add_argument("--seed", type=int, help="seed of split, weights and batches (default: 1)")
            own.add_argument(
                "--source", choices=("tensorflow", "pytorch"), help="export every target from this framework"
            )
        if "orchestrated" in groups:
            own.add_argument(
                "--orchestrator", choices=("default", "tfx"), default="default", help="(default: default)"
            )
            own.add_argument(
                "--beam", default="", help="options of TFX's Beam pipelines, such as '--runner=FlinkRunner'"
            )
        if "target" in groups:
            own.add_argument("target", nargs="?", help="one target; all where it is left out")
        return own

    add(
        verbs.deploy,
        "train, export, gate, publish, start the five targets, and wait until they answer",
        "making",
        "orchestrated",
    )
    add(verbs.train, "train in both frameworks", "making")
    add(verbs.export, "train and write every artifact", "making", "orchestrated")
    own = add(verbs.publish, "train, export, gate, and publish the next version; starts no server", "making")
    own.add_argument("--version", type=int, help="publish this version again, which is in the repository")
    own = add(
        verbs.pipeline,
        "publish as `publish` does, orchestrated by TFX or by the default runner",
        "making",
        "orchestrated",
    )
    own.add_argument("--compile", metavar="FILE", help="only write TFX's DAG for Kubeflow Pipelines v2")
    own = add(verbs.rollback, "serve the version that was published before")
    own.add_argument("--version", type=int, help="serve this one instead")
    add(verbs.lineage, "show what a version was made from, and what was refused on the way", "version")
    add(verbs.reproduce, "make a version again, beside the served one, and compare the two", "version")
    add(verbs.status, "show target, state, version, memory and address")
    own = add(verbs.logs, "print the end of the targets' logs", "target")
    own.add_argument("-n", "--lines", type=int, default=40, help="how many lines of each (default: 40)")
    own.add_argument(
        "-f", "--follow", action="store_true", help="go on with the lines that come (one target)"
    )
    add(verbs.down, "stop what `deploy` started")
    own = add(verbs.predict, "ask every endpoint about one input", "target")
    own.add_argument(
        "--input",
        help="a PNG or JPEG, a text, or JSON, by what the model takes (default: the version's sample)",
    )
    own = add(verbs.compare, "measure the latency and parity of every endpoint", "target")
    own.add_argument("-n", "--rows", type=int, default=200, help="test rows (default: 200)")
    own = add(verbs.images, "build the container images that are missing or older than their sources")
    own.add_argument("image", nargs="*", help="which (default: all)")
    add(verbs.settings, "show every setting, its value and its variable")
    return top
