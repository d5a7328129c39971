"""The command `tandem`: the only file that knows everything, and that imports nothing before it is needed."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from serving.progress import say, showing, watching
from serving.settings import PREFIX, Settings, SettingsError

if TYPE_CHECKING:
    from pipelines.sources import Sources
    from pipelines.stages import Orchestrate
    from serving.targets.base import Endpoint

# Read by TensorFlow when it is first imported: its notices would drown our own lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Read when torch is: its threads would otherwise spin while they wait, and a step beside anything else, such as the
# build of an image, took three times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

INTERRUPTED = 130
USUALLY = {
    "data": 5,
    "validate": 5,
    "gates: quality": 20,
    "export tf-serving": 15,
    "export litert": 15,
    "export tfjs": 20,
    "export torchserve": 20,
    "export onnxruntime": 20,
    "gates: parity": 60,
}
"""Seconds that the steps take on two cores, by how their lines begin."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 where it failed, 2 where it was called wrongly, 130 on Ctrl-C."""
    top = parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(top)
    options = top.parse_args(arguments)
    # SIGTERM ends a stage as Ctrl-C does: what it was writing is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The servers in containers are another user, who reads what is published and configured here.
    os.umask(0o022)
    try:
        settings = Settings.from_environment()
        overrides = {
            field.name: getattr(options, field.name)
            for field in dataclasses.fields(Settings)
            if getattr(options, field.name, None) is not None
        }
        return int(options.verb(dataclasses.replace(settings, **overrides), options) or 0)
    except SettingsError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        complain("interrupted; what is served stays as it is, and running this again goes on from here")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except expected_errors() as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        complain(f"{error}; free some space and run this again" if full else str(error))
        return 1


def parser() -> argparse.ArgumentParser:
    """Every verb with its options."""
    top = argparse.ArgumentParser(
        prog="tandem",
        description="Train one model in TensorFlow and PyTorch, deploy it to five runtimes, prove that they agree.",
        epilog="Settings come from TANDEM_* variables; `tandem settings` lists them. "
        'Tab completion: eval "$(.venv/bin/register-python-argcomplete tandem)"',
    )
    verbs = top.add_subparsers(metavar="verb", required=True)

    def add(verb: Callable[..., int | None], help: str, *groups: str) -> argparse.ArgumentParser:
        own = verbs.add_parser(verb.__name__, help=help, description=help)
        own.set_defaults(verb=verb)
        if "version" in groups:
            completed(
                own.add_argument("model", nargs="?", help="folder in models/ (default: fashion)"), _models
            )
            own.add_argument("version", nargs="?", type=int, help="default: the published one")
        else:
            completed(own.add_argument("--model", help="folder in models/ (default: fashion)"), _models)
        if "making" in groups:
            own.add_argument(
                "--profile", choices=("smoke", "quick", "full"), help="how long to train (default: quick)"
            )
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
            completed(
                own.add_argument("target", nargs="?", help="one target; all where it is left out"), _targets
            )
        return own

    add(
        deploy,
        "train, export, gate, publish, start the five targets, and wait until they answer",
        "making",
        "orchestrated",
    )
    add(train, "train in both frameworks", "making")
    add(export, "train and write every artifact", "making", "orchestrated")
    own = add(publish, "train, export, gate, and publish the next version; starts no server", "making")
    own.add_argument("--version", type=int, help="publish this version again, which is in the repository")
    own.add_argument("--containers", action="store_true", help="write what compose's servers read, too")
    own = add(
        pipeline,
        "publish as `publish` does, orchestrated by TFX or by the default runner",
        "making",
        "orchestrated",
    )
    own.add_argument("--compile", metavar="FILE", help="only write TFX's DAG for Kubeflow Pipelines v2")
    own = add(rollback, "serve the version that was published before")
    own.add_argument("--version", type=int, help="serve this one instead")
    add(lineage, "show what a version was made from, and what was refused on the way", "version")
    add(reproduce, "make a version again, beside the served one, and compare the two", "version")
    add(status, "show target, state, version, memory and address")
    own = add(logs, "print the end of the targets' logs", "target")
    own.add_argument("-n", "--lines", type=int, default=40, help="how many lines of each (default: 40)")
    own.add_argument(
        "-f", "--follow", action="store_true", help="go on with the lines that come (one target)"
    )
    add(down, "stop what `deploy` started")
    own = add(predict, "ask every endpoint about a picture", "target")
    own.add_argument("--picture", help="PNG or JPEG (default: the sample picture)")
    own = add(compare, "measure the latency and parity of every endpoint", "target")
    own.add_argument("-n", "--pictures", type=int, default=200, help="test pictures (default: 200)")
    own = add(images, "build the container images that are missing or older than their sources")
    own.add_argument("image", nargs="*", help="which (default: all)")
    add(doctor, "look for what this machine lacks, and say what mends it")
    add(settings, "show every setting, its value and its variable")
    return top


def completed(action: argparse.Action, names: Callable[..., list[str]]) -> None:
    """Let Tab offer these names where no list of choices is checked."""
    action.completer = names  # type: ignore[attr-defined]


def _models(**_: object) -> list[str]:
    return [path.parent.name for path in Path("models").glob("*/spec.py")]


def _targets(**_: object) -> list[str]:
    from serving import targets

    return list(targets.NAMES)


def deploy(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import stages
    from serving.platforms import doctor

    started = time.monotonic()
    checks = [check for check in doctor.quick(settings) if check.mend]
    for check in checks:
        (complain if check.needed else say)(f"{check.name}: {check.found}. {check.mend}")
    if any(check.failed for check in checks):
        return 1
    with stages.exclusive(settings), showing(USUALLY):
        made_from, orchestrate = _orchestrated(_sources(settings), options)
        done = stages.deploy(made_from, say, orchestrate)
    say(f"five targets answer with version {done.version} ({time.monotonic() - started:.0f} s)")
    show_endpoints(done.endpoints)
    return 0


def train(settings: Settings, _options: argparse.Namespace) -> int:
    from pipelines import stages
    from pipelines.training.record import loss_difference

    with stages.exclusive(settings), showing(USUALLY):
        made_from = stages.sources(settings, say)
        trained = stages.train(made_from, say)
    for framework, result in trained.items():
        last = result.history.epochs[-1]
        say(
            f"{framework}: validation accuracy {last.validation_accuracy:.4f}, "
            f"loss {last.validation_loss:.4f}, {result.history.seconds:.0f} s"
        )
    apart = loss_difference(trained["tensorflow"].history, trained["pytorch"].history)
    say(
        f"losses of the first steps differ by {apart:.2g} at most; logs: tensorboard --logdir {made_from.run}"
    )
    return 0


def export(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import stages

    with stages.exclusive(settings), showing(USUALLY):
        made_from, orchestrate = _orchestrated(_sources(settings), options)
        folder = stages.export(made_from, say, orchestrate)
    say(f"artifacts are in {folder}; publishing holds them against the gates")
    return 0


def publish(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import publish as publishing
    from pipelines import stages

    with stages.exclusive(settings), showing(USUALLY):
        if options.version is not None:
            publishing.point(settings.repository, settings.model, options.version)
            return _swap(settings, options.version)
        made_from = _sources(settings)
        version = stages.ensure_published(made_from, say)
        if options.containers:
            stages.configure_containers(made_from)
    say(f"version {version} is published; `tandem deploy` serves it")
    return 0


def pipeline(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import stages

    with stages.exclusive(settings), showing(USUALLY):
        made_from = stages.sources(settings, say)
        if options.compile:
            from pipelines.tfx import run

            return run.compile(made_from, options.compile, options.beam, say)
        made_from, orchestrate = _orchestrated(made_from, options)
        version = stages.ensure_published(made_from, say, orchestrate)
    own = "" if orchestrate is None else f" --orchestrator {options.orchestrator}"
    say(f"version {version} is published; `tandem deploy{own}` serves it")
    return 0


def _sources(settings: Settings) -> Sources:
    """What a version is made from; what may fail to be fetched is fetched before anything is trained."""
    from pipelines import stages
    from serving.web.install import install

    made_from = stages.sources(settings, say)
    install(settings.artifacts / "web")
    return made_from


def _orchestrated(made_from: Sources, options: argparse.Namespace) -> tuple[Sources, Orchestrate | None]:
    if options.orchestrator == "default":
        return made_from, None
    from pipelines.tfx import run

    return run.orchestrated(made_from, options.beam, say)


def rollback(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import publish as publishing
    from pipelines import stages

    with stages.exclusive(settings), showing(USUALLY):
        version = publishing.rollback(settings.repository, settings.model, options.version)
        say(f"version {version} is published")
        return _swap(settings, version)


def lineage(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import provenance

    return provenance.show(settings, options.version, write)


def reproduce(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import reproduction, stages

    with stages.exclusive(settings):
        return reproduction.reproduce(settings, options.version, say, write)


def _swap(settings: Settings, version: int) -> int:
    from pipelines import rollout
    from serving import platforms

    platform, _ = platforms.choose(settings)
    if not platform.states(settings):
        say("no target runs; `tandem deploy` starts them")
        return 0
    rollout.serve(settings, version, say)
    return 0


def status(settings: Settings, _options: argparse.Namespace) -> int:
    from pipelines import table
    from serving import platforms, targets

    platform, why = platforms.choose(settings)
    states = platform.states(settings)
    rows = []
    for name in targets.NAMES:
        target, state = targets.load(name), states.get(name)
        version = target.served_version(settings) if state else None
        rows.append(
            [
                name,
                str(state.pid or "-") if state else "-",
                state.state if state else "stopped",
                str(version or "-"),
                table.duration(state.uptime_seconds) if state else "-",
                table.size(state.memory) if state else "-",
                _host(target.endpoints(settings, version or 0, settings.artifacts)[0].address),
            ]
        )
    write(f"platform {platform.name} ({why})")
    write(table.render(["target", "pid", "state", "version", "uptime", "memory", "address"], rows))
    if served_by := states.get("tf-serving"):
        original = served_by.image.startswith("tensorflow/")
        write(
            f"tf-serving is {'the original server' if original else 'our embedded server, not the original'}"
        )
    if beside := states.get("prometheus"):
        write(f"prometheus is {beside.state}: http://{settings.host}:{settings.prometheus_port}")
    ready = sum(row[3] != "-" for row in rows)
    if ready < len(rows):
        write(f"{ready} of {len(rows)} targets answer; `make deploy` starts the others")
    return 0 if ready == len(rows) else 1


def _host(address: str) -> str:
    """An address without its path: a row of the table fits into 80 columns."""
    return "/".join(address.split("/")[:3])


def logs(settings: Settings, options: argparse.Namespace) -> int:
    from serving import platforms, targets
    from serving.platforms.base import PlatformError

    if options.target is not None and options.target not in targets.NAMES:
        raise PlatformError(f"there is no target {options.target!r}; there are: {', '.join(targets.NAMES)}")
    if options.follow and options.target is None:
        raise PlatformError("--follow takes one target: tandem logs tf-serving --follow")
    platform, _ = platforms.choose(settings)
    for name in [options.target] if options.target else targets.NAMES:
        for line in platform.log(settings, name, options.lines, options.follow):
            write(line.rstrip("\n") if options.target else f"{name}: {line.rstrip()}")
            sys.stdout.flush()
    return 0


def down(settings: Settings, _options: argparse.Namespace) -> int:
    from serving import platforms

    platform, _ = platforms.choose(settings)
    say("stopped" if platform.down(settings) else "nothing ran")
    return 0


def predict(settings: Settings, options: argparse.Namespace) -> int:
    from serving.compare import ask

    return ask.show(settings, options.target, options.picture, write)


def compare(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import comparison

    return comparison.show(settings, options.target, options.pictures, write)


def images(settings: Settings, options: argparse.Namespace) -> int:
    from serving.platforms import provision

    with showing(), watching() as watch:
        provision.build(settings, options.image, watch)
    say(f"up to date: {', '.join(options.image) or 'every image'}")
    return 0


def doctor(settings: Settings, _options: argparse.Namespace) -> int:
    from pipelines import table
    from serving.platforms import doctor

    checks = list(doctor.everything(settings))
    states = {True: "MISSING", False: "optional"}
    rows = [[c.name, states[c.needed] if c.mend else "ok", c.found] for c in checks]
    write(table.render(["what", "state", "found"], rows))
    for check in checks:
        if check.mend:
            write(f"{check.name}: {check.mend}")
    return int(any(check.failed for check in checks))


def settings(settings: Settings, _options: argparse.Namespace) -> int:
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        write(f"{PREFIX + field.name.upper():40}{value!s:24}{field.metadata['help']}")
    return 0


def show_endpoints(endpoints: dict[str, list[Endpoint]]) -> None:
    """The table of where everything answers, then the lines to paste."""
    from pipelines import table

    rows = [[name, one.protocol, one.address] for name, own in endpoints.items() for one in own]
    write("\n" + table.render(["target", "protocol", "address"], rows) + "\n\nPaste one of these:\n")
    for name, own in endpoints.items():
        write(f"# {name}\n{own[0].curl}")


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")


def expected_errors() -> tuple[type[Exception], ...]:
    """The errors that a user can mend: their message is enough. Anything else is a fault of ours: it is shown whole."""
    errors: list[type[Exception]] = [OSError]
    for module, names in {
        "models.base": ["ModelError"],
        "serving.repository": ["RepositoryError"],
        "serving.targets.base": ["TargetError"],
        "serving.platforms.base": ["PlatformError"],
        "pipelines.data": ["DataError"],
        "pipelines.gates": ["GateError"],
        "pipelines.lineage": ["LineageError"],
        "pipelines.publish": ["PublishError"],
        "pipelines.reproduction": ["ReproductionError"],
        "pipelines.stages": ["BusyError"],
        "pipelines.tfx.run": ["PipelineError"],
        "pipelines.exporting.base": ["ExportError"],
    }.items():
        # Only what was imported can have been raised.
        if module in sys.modules:
            errors += [getattr(sys.modules[module], name) for name in names]
    return tuple(errors)


if __name__ == "__main__":
    sys.exit(main())
