"""Every verb with its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from models.base import FRAMEWORKS, load
from pipelines.cli import verbs
from serving import targets
from serving.compare.decision import GOALS, PLACES
from serving.server import VERSION
from serving.settings import Settings


def parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    top = argparse.ArgumentParser(
        prog="tandem",
        description="Train one model in TensorFlow and PyTorch, deploy it to five runtimes, prove that they agree.",
        epilog="Settings come from TANDEM_* variables; `tandem settings` lists them. "
        'Tab completion: eval "$(.venv/bin/register-python-argcomplete tandem)"',
    )
    top.add_argument("--version", action="version", version=f"tandem {VERSION}")
    subparsers = top.add_subparsers(metavar="verb", required=True)

    def add(verb: Callable[..., int | None], help: str, *groups: str) -> argparse.ArgumentParser:
        own = subparsers.add_parser(verb.__name__.rstrip("_"), help=help, description=help)
        own.set_defaults(verb=verb)
        option = own.add_argument
        if "version" in groups:
            completed(option("model", nargs="?", help="folder in models/ (default: fashion)"), _models)
            option("version", nargs="?", type=int, help="default: the published one")
        elif "imported" not in groups:
            completed(option("--model", help="folder in models/ (default: fashion)"), _models)
        if "making" in groups:
            profile = option("--profile", help="training profile of the model (default: quick)")
            completed(profile, _profiles)
            option("--seed", type=int, help="seed of split, weights and batches (default: 1)")
            option("--targets", help="targets to make, by commas (default: all that the model reaches)")
            option("--precision", help="arithmetic of the training: float32, bf16 or fp16 (default: float32)")
            option("--devices", type=int, help="devices that share each batch (default: 1)")
            option("--device", choices=("auto", "cpu", "gpu"), help="device of the training (default: auto)")
            option("--source", choices=FRAMEWORKS, help="export every target from this framework")
        if "orchestrated" in groups:
            option("--orchestrator", choices=("default", "tfx"), default="default", help="(default: default)")
            option("--beam", default="", help="options of TFX's Beam pipelines: '--runner=FlinkRunner'")
        if "target" in groups:
            completed(option("target", nargs="?", help="one target; all where it is left out"), _targets)
        return own

    both = ("making", "orchestrated")
    add(verbs.deploy, "train, export, gate, publish, start the five targets, wait until they answer", *both)
    add(verbs.train, "train in both frameworks", "making")
    add(verbs.export, "train and write every artifact", *both)
    own = add(verbs.publish, "train, export, gate, and publish the next version; starts no server", "making")
    own.add_argument("--version", type=int, help="publish this version again, which is in the repository")
    own.add_argument("--containers", action="store_true", help="write what compose's servers read, too")
    own = add(verbs.pipeline, "publish as `publish` does, by TFX or by the default runner", *both)
    own.add_argument("--compile", metavar="FILE", help="only write TFX's DAG for Kubeflow Pipelines v2")
    own = add(verbs.rollback, "serve the version that was published before")
    own.add_argument("--version", type=int, help="serve this one instead")
    own = add(verbs.import_, "make a model's folder from an existing file", "imported")
    own.add_argument("path", type=Path, help="an .onnx, .keras, .tflite or .pt2, or a SavedModel's folder")
    own.add_argument("--name", required=True, help="name of the folder in models/")
    own.add_argument("--samples", type=Path, metavar="NPZ", help="rows of each input (default: drawn ones)")
    own.add_argument("--signature", default="", help="signature of a SavedModel (default: serving_default)")
    own.add_argument("--trust", action="store_true", help="allow code in the file to run")
    add(verbs.lineage, "show what a version was made from, and what was refused on the way", "version")
    add(verbs.reproduce, "make a version again, beside the served one, and compare the two", "version")
    add(verbs.status, "show target, state, version, memory and address")
    own = add(verbs.logs, "print the end of the targets' logs", "target")
    own.add_argument("-n", "--lines", type=int, default=40, help="lines of each target (default: 40)")
    own.add_argument("-f", "--follow", action="store_true", help="print new lines as they come (one target)")
    add(verbs.down, "stop what `deploy` started")
    own = add(verbs.predict, "call every endpoint with one input", "target")
    own.add_argument("--input", help="a PNG or JPEG, a text, or JSON (default: the model's sample)")
    _compare(add(verbs.compare, "measure every endpoint, side by side, and write a report", "target"))
    _decide(add(verbs.decide, "rank the ways to production by constraints, from the last report"))
    own = add(verbs.profile, "trace training steps and runs of artifacts, and divide their time")
    own.add_argument(
        "framework",
        nargs="?",
        choices=(*FRAMEWORKS, "onnxruntime", "litert"),
        help="framework or runtime (default: all that the model has)",
    )
    own.add_argument("--steps", type=int, default=20, help="steps to time, and then to trace (default: 20)")
    own.add_argument("--profile", help="training profile that gives the batches (default: quick)")
    own = add(verbs.images, "build the container images that are missing or older than their sources")
    own.add_argument("image", nargs="*", help="images to build (default: all)")
    add(verbs.doctor, "check what this machine lacks, and name the remedy")
    add(verbs.settings, "show every setting, its value and its variable")
    return top


def _compare(own: argparse.ArgumentParser) -> None:
    add = own.add_argument
    add("-n", "--rows", type=int, help="test rows to send (default: the whole test split)")
    add(
        "--variants",
        action="store_true",
        help="other precisions, forms, batching, and Keras trained on PyTorch as rows, too",
    )
    add("--source", choices=FRAMEWORKS, help="give all rows this framework's weights")
    add("--seconds", type=float, default=0.8, help="seconds of each reading (default: 0.8)")
    add("--rounds", type=int, default=3, help="rounds in which the rows take turns (default: 3)")
    add("--target-ms", type=float, default=20.0, help="p99 that a rate must keep (default: 20)")
    add("--connections", type=int, default=8, help="connections while a rate is measured (default: 8)")
    add("--price-per-core-hour", type=float, help="price of a core, for the cost of a million requests")
    add("--against", type=Path, metavar="REPORT", help="compare with this report.json")
    add("--fail-on", choices=("regression",), help="exit with 1 where a figure is worse than in --against")
    add("--markdown", action="store_true", help="also print the summary for a pull request")
    foreign = "a server that Tandem did not start, such as oip+http://localhost:8000/v2/models/m or "
    foreign += "tfs+grpc://localhost:8500/m; may be repeated"
    add("--endpoint", action="append", default=[], metavar="URL", help=foreign)
    add("--samples", type=Path, metavar="NPZ", help="with --endpoint: inputs by name")


def _decide(own: argparse.ArgumentParser) -> None:
    add = own.add_argument
    add("--report", type=Path, help="report.json to decide from (default: the last one)")
    add("--score", "--accuracy", type=float, help="least score of the task")
    add("--p99-ms", type=float, help="largest p99 of one request at a time")
    add("--memory-mb", type=float, help="largest memory of the server, in MiB")
    add("--runs-on", choices=PLACES, help="place where it must run")
    add("--prefer", choices=(*GOALS, "maintenance"), default="latency", help="(default: latency)")


def completed(action: argparse.Action, names: Callable[..., list[str]]) -> None:
    """Offer these names for tab completion, without a check of choices."""
    action.completer = names  # type: ignore[attr-defined]


def _models(**_: object) -> list[str]:
    return [path.parent.name for path in Path("models").glob("*/spec.py")]


def _profiles(**_: object) -> list[str]:
    return list(load(Settings.from_environment().model).spec.profiles)


def _targets(**_: object) -> list[str]:
    return list(targets.NAMES)
