"""Every endpoint measured on test rows: what `tandem compare` does."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import models.base
from models.signature import Arrays
from pipelines import data
from pipelines.records import tables
from serving import golden, platforms, repository, targets
from serving.compare import endpoints, generator, page, report, resources, words
from serving.compare.changes import Change, changes
from serving.compare.measure import Measuring, Plan, Subject
from serving.compare.report import FAILED, UNREACHABLE, Report, ReportError, Row
from serving.platforms.base import TargetState
from serving.settings import Settings
from serving.targets.base import SAMPLES, TargetError, served_signature, unreachable
from serving.targets.runtime import runs

Say = Callable[[str], None]
Answers: TypeAlias = Mapping[str, Arrays]
"""Outputs for all samples, by the row's name."""
Judge = Callable[[Report, Answers], None]

SUMMARY = "summary.md"
EXTERNAL = "a server that Tandem did not start"


@dataclass(frozen=True)
class Options:
    """What `tandem compare` was asked for."""

    target: str | None
    endpoints: tuple[str, ...]
    samples: Path | None
    rows: int
    plan: Plan
    price_per_core_hour: float | None
    against: Path | None


def asked(options: argparse.Namespace) -> Options:
    """The options of the command line. Raises `TargetError` where they do not fit each other."""
    if bool(options.endpoint) != (options.samples is not None):
        raise TargetError("--endpoint and --samples need each other: the inputs to send, and where")
    if options.rows < max(Plan().batches):
        raise TargetError(
            f"--rows {options.rows}: expected at least {max(Plan().batches)}, the largest request"
        )
    plan = Plan(options.seconds, options.rounds, options.target_ms, options.connections)
    return Options(
        options.target,
        tuple(options.endpoint),
        options.samples,
        options.rows,
        plan,
        options.price_per_core_hour,
        options.against,
    )


def compare(settings: Settings, options: Options, say: Say) -> tuple[Report, Path, list[Change]]:
    """Measure, and write the report; what there is of it where it is interrupted.

    Returns it, its folder, and what differs from the report to compare with.

    Raises `TargetError` where no version is published, `ReportError` where the report to compare with is none.
    """
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise TargetError(
            "MLPerf LoadGen is not installed, as it has no wheel for this machine; where a C++ compiler is, "
            "`.venv/bin/uv pip install mlcommons-loadgen` builds it"
        )
    old = report.load(options.against) if options.against else None
    made, subjects, inputs, judge = (_foreign if options.endpoints else _own)(settings, options)
    folder = settings.artifacts / "reports" / datetime.now().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    say(f"{len(made.working)} of {len(made.rows)} rows answer; load average {made.load_before:.1f}")
    samples = folder / "samples.npz"
    np.savez(samples, **inputs)
    measuring = Measuring(settings, subjects, samples, options.plan, say)
    try:
        judge(made, measuring.answers())
        measuring.latencies()
        measuring.rates()
        measuring.batches()
    except KeyboardInterrupt:
        made.partial = True
    finally:
        for file in folder.glob("*.npz"):
            file.unlink()
    made.load_after = resources.load_average()
    found = changes(old, made) if old else []
    made.notes += map(str, found)
    write(made, folder)
    return made, folder, found


def latest(settings: Settings, path: Path | None) -> Report:
    """The report at `path`, or the newest one of all. Raises `ReportError`."""
    if path is not None:
        return report.load(path)
    found = sorted((settings.artifacts / "reports").glob(f"*/{report.FILE}"))
    if not found:
        raise ReportError("there is no report to decide from; `make compare` makes one")
    return report.load(found[-1])


def _own(settings: Settings, options: Options) -> tuple[Report, list[Subject], dict[str, Any], Judge]:
    """The endpoints of what is published, on test rows."""
    model = models.base.load(settings.model)
    if options.target is not None and options.target not in targets.NAMES:
        raise TargetError(f"there is no target {options.target!r}; there are: {', '.join(targets.NAMES)}")
    names = _reached(settings, options.target)
    version = repository.served_version(repository.model_dir(settings.repository, names[0], settings.model))
    if version is None:
        raise TargetError(f"no version of {settings.model} is published; `make deploy` publishes the first")
    platform, _ = platforms.choose(settings)
    states = platform.states(settings)
    subjects = [subject for name in names for subject in _subjects(settings, name, version, states)]
    score = model.spec.task.score
    made = _report(settings.model, version, score, platform.name, subjects, options)
    test = data.load(model, settings.artifacts, settings.seed).test.take(slice(options.rows))
    inputs = dict(test.served(model.spec.signature))

    def judge(made: Report, answers: Answers) -> None:
        for row in made.rows:
            if (found := answers.get(row.name)) is not None:
                row.score = model.spec.task.metrics(next(iter(found.values())), test.targets).get(score)
        made.notes += [
            f"{name} is not reached: {why}" for name, why in unreachable(settings, version).items()
        ]
        _pair(made, answers)
        _hold_against_golden(settings, made, version)

    return made, subjects, inputs, judge


def _foreign(_settings: Settings, options: Options) -> tuple[Report, list[Subject], dict[str, Any], Judge]:
    """Servers that Tandem did not start, on samples of the user's."""
    assert options.samples is not None
    try:
        with np.load(options.samples) as stored:
            inputs = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise TargetError(f"{options.samples} cannot be read as .npz: {error}") from None
    if not inputs or min(map(len, inputs.values())) < max(options.plan.batches):
        raise TargetError(
            f"{options.samples}: expected at least {max(options.plan.batches)} rows of each input"
        )
    addresses = [endpoints.parse(url) for url in options.endpoints]
    subjects = [
        Subject(Row(url, at.scheme, "-", EXTERNAL))
        for url, at in zip(options.endpoints, addresses, strict=True)
    ]
    made = _report(addresses[0].model, 0, "score", "-", subjects, options)
    return made, subjects, inputs, _pair


def _report(
    model: str, version: int, score: str, platform: str, subjects: list[Subject], options: Options
) -> Report:
    plan = options.plan
    settings = {
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "target_ms": plan.target_ms,
        "connections": plan.connections,
        "batches": list(plan.batches),
        "rows": options.rows,
        "price_per_core_hour": options.price_per_core_hour,
    }
    started = datetime.now(UTC).isoformat(timespec="seconds")
    rows, load = [subject.row for subject in subjects], resources.load_average()
    return Report(
        model, version, score, settings, resources.machine(), platform, started, rows, load_before=load
    )


def write(made: Report, folder: Path) -> None:
    """The report as data, page, Markdown and CSV."""
    report.save(made, folder)
    (folder / page.FILE).write_text(page.html(made))
    (folder / SUMMARY).write_text(page.markdown(made))
    (folder / "rows.csv").write_text(page.comma_separated(made))


def lines(made: Report, folder: Path) -> list[str]:
    """What the terminal shows of a report: the table, the words, and where the rest is."""
    columns = ["p50 ms", "p99 ms", "req/s", "CPU us", "score", "largest difference"]
    header = ["target", "protocol", *columns[:-1], "difference"]
    rows = [[row.target, row.protocol, *(page.COLUMNS[name](row) for name in columns)] for row in made.rows]
    found = [tables.render(header, rows), "", *words.conclusions(made)]
    return [*found, *made.notes, "", f"report: {folder / page.FILE}"]


def _subjects(
    settings: Settings, name: str, version: int, states: Mapping[str, TargetState]
) -> list[Subject]:
    """The rows of a target: one for each of its protocols, or one that says why there is none."""
    target, state = targets.load(name), states.get(name)
    folder = repository.version_dir(settings.repository, name, settings.model, version)
    manifest = repository.read_manifest(folder)

    def row(protocol: str, condition: str, reason: str = "") -> Row:
        beside = {repository.MANIFEST, repository.GOLDEN}
        files = [path for path in folder.rglob("*") if path.is_file() and path.name not in beside]
        size = sum(path.stat().st_size for path in files if SAMPLES not in path.parts)
        return Row(
            name,
            protocol,
            manifest.source,
            runs(settings, name, version, state.image if state else ""),
            condition,
            reason,
            artifact_bytes=size,
        )

    # Whoever has started it: on a cluster it answers through a port that is forwarded.
    if target.served_version(settings) != version:
        return [
            Subject(row("-", UNREACHABLE, f"does not answer with version {version}; `make deploy` starts it"))
        ]
    try:
        clients = target.clients(settings)
    except TargetError as error:
        return [Subject(row("-", FAILED, str(error)))]
    for client in clients.values():
        client.close()
    # What runs in a browser is not in the process that serves its files.
    pid = state.pid or 0 if state and name != "tfjs" else 0

    def memory() -> int | None:
        now = platforms.choose(settings)[0].states(settings).get(name)
        return now.memory if now and pid else None

    return [Subject(row(protocol, report.WORKS), pid, memory, name == "tfjs") for protocol in clients]


def _pair(made: Report, answers: Answers) -> None:
    """How far the answers of each two rows are from each other."""

    def apart(left: Arrays | None, right: Arrays | None) -> float | None:
        if left is None or right is None:
            return None
        return max(float(np.abs(left[name] - right[name]).max()) for name in left if name in right)

    made.parity = [
        [apart(answers.get(one.name), answers.get(two.name)) for two in made.rows] for one in made.rows
    ]


def _reached(settings: Settings, target: str | None) -> list[str]:
    """The targets to measure. Raises `TargetError` where the one that was asked for has no artifact, and where the
    model takes no rows."""
    current = repository.served_version(
        repository.model_dir(settings.repository, targets.NAMES[0], settings.model)
    )
    if current is None:
        return list(targets.NAMES)
    if not served_signature(settings, targets.NAMES[0]).batched:
        raise TargetError(
            f"{settings.model} is not batched, and the comparison sends rows; `tandem predict` asks it"
        )
    closed = unreachable(settings, current)
    if target in closed:
        raise TargetError(f"{target} is not reached: {closed[target]}")
    return [target] if target else [name for name in targets.NAMES if name not in closed]


def _hold_against_golden(settings: Settings, made: Report, version: int) -> None:
    """How far each row is from the framework's own answers, which travel with its artifact."""
    for row in made.working:
        folder = repository.version_dir(settings.repository, row.target, settings.model, version)
        sample = golden.read(folder)
        if sample is None:
            continue
        client = generator.connect(settings, row.target, row.protocol)
        try:
            found = client.predict(sample.inputs)
            row.difference = max(float(np.abs(found[n] - own).max()) for n, own in sample.outputs.items())
        except TargetError as error:
            row.state, row.reason = FAILED, str(error)
        finally:
            client.close()
