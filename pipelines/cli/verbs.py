"""The verbs of the command line."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines import publish as publishing
from pipelines.records import tables
from serving import platforms, repository, targets
from serving.platforms import rollout
from serving.platforms.base import PlatformError
from serving.progress import say, showing
from serving.settings import PREFIX, Settings
from serving.targets.base import runs, unreachable

if TYPE_CHECKING:
    from pipelines.stages import Orchestrate, Recipe
    from serving.targets.base import Endpoint

USUALLY = {"data": 5, "gates: quality": 30, "export litert": 10, "export": 5, "gates: parity": 15}
"""Seconds of the steps on two cores, by the beginning of their lines."""


@contextmanager
def _changing(settings: Settings) -> Iterator[None]:
    """Let no other command change the artifacts during the block, and show its progress."""
    from pipelines import stages

    with stages.exclusive(settings), showing(USUALLY):
        yield


def deploy(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import stages
    from serving.platforms import doctor

    started = time.monotonic()
    checks = [check for check in doctor.quick(settings) if check.mend]
    for check in checks:
        (complain if check.needed else say)(f"{check.name}: {check.found}. {check.mend}")
    if any(check.failed for check in checks):
        return 1
    with _changing(settings):
        recipe, orchestrate = _orchestrated(_recipe(settings), options)
        with rollout.prepared(settings, say) as told:
            version = stages.ensure_published(recipe, told, orchestrate)
        done = rollout.serve(settings, version, say)
    count, took = len(targets.NAMES), time.monotonic() - started
    answering = count - len(done.unreachable)
    say(f"{answering} of {count} targets answer with version {done.version} ({took:.0f} s)")
    show_endpoints(done.endpoints, done.unreachable)
    return 0


def train(settings: Settings, _options: argparse.Namespace) -> None:
    from pipelines import stages
    from pipelines.training.record import loss_difference

    with _changing(settings):
        recipe = stages.load_recipe(settings, say)
        trained = stages.train(recipe, say)
    for framework, result in trained.items():
        last = result.history.epochs[-1]
        say(
            f"{framework}: validation {recipe.model.spec.task.watched} {last.validation_metric:.4f}, "
            f"loss {last.validation_loss:.4f}, {result.history.seconds:.0f} s"
        )
    if len(trained) > 1:
        apart = loss_difference(*(result.history for result in trained.values()))
        say(f"losses of the first steps differ by {apart:.2g} at most")
    elif settings.node_rank:
        say(f"node {settings.node_rank} of {settings.nodes} has done its part; node 0 exports and publishes")
        return
    elif trained:
        say("training parity is not claimed: there is one network")
    else:
        say(f"{settings.model} is an imported artifact: there is nothing to train")
    say("`make tensorboard` shows the curves")


def export(settings: Settings, options: argparse.Namespace) -> None:
    from pipelines import stages

    with _changing(settings):
        recipe, orchestrate = _orchestrated(_recipe(settings), options)
        folder = stages.export(recipe, say, orchestrate)
    say(f"artifacts are in {folder}; publishing holds them against the gates")


def publish(settings: Settings, options: argparse.Namespace) -> None:
    from pipelines import stages

    with _changing(settings):
        if options.version is not None:
            publishing.point(settings.repository, settings.model, options.version)
            _swap(settings, options.version)
            return
        version = stages.ensure_published(_recipe(settings), say)
        if options.containers:
            stages.configure_containers(settings)
    say(f"version {version} is published; `tandem deploy` serves it")


def pipeline(settings: Settings, options: argparse.Namespace) -> None:
    from pipelines import stages

    with _changing(settings):
        recipe = stages.load_recipe(settings, say)
        if options.compile:
            from pipelines.tfx import run

            run.compile(recipe, options.compile, options.beam, say)
            return
        recipe, orchestrate = _orchestrated(recipe, options)
        version = stages.ensure_published(recipe, say, orchestrate)
    own = "" if orchestrate is None else f" --orchestrator {options.orchestrator}"
    say(f"version {version} is published; `tandem deploy{own}` serves it")


MAKING = deploy, export, publish, pipeline
"""The verbs that only the first of several machines runs; the others train their part instead."""


def import_(_settings: Settings, options: argparse.Namespace) -> None:
    from pipelines.cli import importing

    folder = importing.take(
        options.path, options.name, options.samples, options.signature, options.trust, say
    )
    say(f"written: models/{folder.name}; `make deploy MODEL={folder.name}` ships it")


def _recipe(settings: Settings) -> Recipe:
    """Load the recipe of a version, and fetch everything that may fail to be fetched before the training."""
    from pipelines import stages
    from serving.web.install import install

    made = stages.load_recipe(settings, say)
    install(settings.artifacts / "web")
    return made


def _orchestrated(recipe: Recipe, options: argparse.Namespace) -> tuple[Recipe, Orchestrate | None]:
    if options.orchestrator == "default":
        return recipe, None
    from pipelines.tfx import run

    return run.orchestrated(recipe, options.beam, say)


def rollback(settings: Settings, options: argparse.Namespace) -> None:
    with _changing(settings):
        version = publishing.rollback(settings.repository, settings.model, options.version)
        say(f"version {version} is published")
        _swap(settings, version)


def lineage(settings: Settings, options: argparse.Namespace) -> None:
    from pipelines.records import provenance

    provenance.show(settings, options.version, write)


def reproduce(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines import stages
    from pipelines.records import reproduction

    with stages.exclusive(settings):
        return reproduction.reproduce(settings, options.version, say, write)


def _swap(settings: Settings, version: int) -> None:
    platform, _ = platforms.choose(settings)
    if platform.states(settings):
        rollout.serve(settings, version, say)
    else:
        say("no target runs; `tandem deploy` starts them")


def status(settings: Settings, _options: argparse.Namespace) -> int:
    platform, why = platforms.choose(settings)
    states = platform.states(settings)
    current = repository.served_version(repository.model_dir(settings.repository, "tfjs", settings.model))
    closed = unreachable(settings, current) if current else {}
    rows, running, ready = [], [], []
    for name in targets.NAMES:
        target, state = targets.load(name), states.get(name)
        version = target.served_version(settings) if state else None
        address = target.endpoints(settings, version or 0, settings.artifacts)[0].address
        # Without its path, so that a row fits into 80 columns.
        row = [name, "-", "stopped", "-", "-", "-", "/".join(address.split("/")[:3])]
        if state:
            pid, memory = str(state.pid or "-"), tables.size(state.memory)
            row[1:6] = pid, state.state, str(version or "-"), tables.duration(state.uptime_seconds), memory
            served = runs(settings, name, version, state.image)
            running.append([name, "the page, without the model" if name in closed else served])
        elif name in closed:
            row[2], row[6] = "not reached", "-"
        rows.append(row)
        ready += [name] if version else []
    write(f"platform {platform.name} ({why})")
    write(tables.render(["target", "pid", "state", "version", "uptime", "memory", "address"], rows))
    if running:
        write(f"\n{tables.render(['target', 'runs'], running)}\n")
    if beside := states.get("prometheus"):
        write(f"prometheus is {beside.state}: http://{settings.host}:{settings.prometheus_port}")
    for name, reason in closed.items():
        write(f"{name} is not reached: {reason}")
    missing = set(targets.NAMES) - {*ready, *closed}
    if missing:
        write(f"{len(ready)} of {len(rows)} targets answer; `make deploy` starts the others")
    return 1 if missing else 0


def logs(settings: Settings, options: argparse.Namespace) -> None:
    if options.target is not None and options.target not in targets.NAMES:
        raise PlatformError(f"there is no target {options.target!r}; there are: {', '.join(targets.NAMES)}")
    if options.follow and options.target is None:
        raise PlatformError("--follow takes one target: tandem logs tf-serving --follow")
    platform, _ = platforms.choose(settings)
    for name in [options.target] if options.target else targets.NAMES:
        for line in platform.log(settings, name, options.lines, options.follow):
            write(line.rstrip("\n") if options.target else f"{name}: {line.rstrip()}")


def down(settings: Settings, _options: argparse.Namespace) -> None:
    platform, _ = platforms.choose(settings)
    say("stopped" if platform.down(settings) else "nothing ran")


def predict(settings: Settings, options: argparse.Namespace) -> int:
    from serving.compare import predict as predictions

    return predictions.show(settings, options.target, options.input, write)


def compare(settings: Settings, options: argparse.Namespace) -> int:
    from pipelines.cli import comparison
    from serving.compare import page

    with showing():
        made, folder, changes = comparison.compare(settings, options, say)
    for line in comparison.lines(made, folder):
        write(line)
    if options.markdown:
        write((folder / page.SUMMARY).read_text())
    if made.partial:
        return 130
    worse = any(change.worse for change in changes)
    failed = any(not row.works or row.failures for row in made.rows)
    return int(failed or (worse and options.fail_on == "regression"))


def profile(settings: Settings, options: argparse.Namespace) -> None:
    from pipelines.cli import profiling

    with showing(USUALLY):
        made, folder = profiling.profile(settings, options.framework, options.steps, say)
    for line in profiling.page.lines(made, folder):
        write(line)


def decide(settings: Settings, options: argparse.Namespace) -> int:
    from serving.compare import decision, report

    wish = decision.Wish(options.score, options.p99_ms, options.memory_mb, options.runs_on, options.prefer)
    reports = settings.artifacts / "reports"
    made = report.load(options.report) if options.report else decision.latest(reports, settings.model)
    found = decision.decide(made, wish)
    for line in decision.lines(found):
        write(line)
    return int(not found.ranked)


def images(settings: Settings, options: argparse.Namespace) -> None:
    from serving.platforms import provision

    provision.build(settings, options.image, lambda name, line: say(f"{name}: {line}"))
    say(f"up to date: {', '.join(options.image) or 'every image'}")


def doctor(settings: Settings, _options: argparse.Namespace) -> int:
    from serving.platforms import doctor

    checks = list(doctor.everything(settings))
    states = {True: "MISSING", False: "optional"}
    rows = [[c.name, states[c.needed] if c.mend else "ok", c.found] for c in checks]
    write(tables.render(["what", "state", "found"], rows))
    for check in checks:
        if check.mend:
            write(f"{check.name}: {check.mend}")
    return int(any(check.failed for check in checks))


def settings(settings: Settings, _options: argparse.Namespace) -> None:
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        # A path may be longer than its column.
        write(f"{PREFIX + field.name.upper():38}  {value!s:22}  {field.metadata['help']}")


def show_endpoints(endpoints: dict[str, list[Endpoint]], unreachable: dict[str, str]) -> None:
    """Print the table of endpoints, the reasons for targets that are not reached, and the lines to paste."""
    rows = [[name, one.protocol, one.address] for name, own in endpoints.items() for one in own]
    rows += [[name, "-", "not reached"] for name in unreachable]
    write("\n" + tables.render(["target", "protocol", "address"], rows))
    for name, why in unreachable.items():
        write(f"{name} is not reached: {why}")
    write("\nPaste one of these:\n")
    for name, own in endpoints.items():
        write(f"# {name}\n{own[0].curl}")


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
