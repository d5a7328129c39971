"""Every endpoint measured on test rows: what `tandem compare` does."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import models.base
from models.signature import Arrays
from pipelines import data
from pipelines.cli import frameworks, subjects
from pipelines.records import tables
from serving import golden, platforms, repository, targets
from serving.compare import endpoints, generator, page, parts, peers, report, resources, words
from serving.compare.changes import Change, changes
from serving.compare.measure import Measuring, Plan, Subject
from serving.compare.report import FAILED, PEER, Report, ReportError
from serving.errors import TandemError
from serving.progress import waiting
from serving.server.errors import ServerError
from serving.settings import Settings
from serving.targets.base import TargetError, served_signature, unreachable

Say = Callable[[str], None]
Answers: TypeAlias = Mapping[str, Arrays]
"""Outputs for all samples, by the row's name."""
Judge = Callable[[Report, Answers], None]

SUMMARY = "summary.md"


@dataclass(frozen=True)
class Options:
    """What `tandem compare` was asked for."""

    target: str | None
    endpoints: tuple[str, ...]
    samples: Path | None
    rows: int | None
    """None: the whole test split."""
    plan: Plan
    variants: bool = False
    peers: Path | None = None
    source: str | None = None
    price_per_core_hour: float | None = None
    against: Path | None = None


def asked(options: argparse.Namespace) -> Options:
    """The options of the command line. Raises `TargetError` where they do not fit each other."""
    if bool(options.endpoint) != (options.samples is not None):
        raise TargetError("--endpoint and --samples need each other: the inputs to send, and where")
    if options.rows is not None and options.rows < max(Plan().batches):
        raise TargetError(
            f"--rows {options.rows}: expected at least {max(Plan().batches)}, the largest request"
        )
    if options.peers is not None:
        peers.read(options.peers)
    plan = Plan(options.seconds, options.rounds, options.target_ms, options.connections)
    return Options(
        options.target,
        tuple(options.endpoint),
        options.samples,
        options.rows,
        plan,
        options.variants,
        options.peers,
        options.source,
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
    folder = settings.artifacts / "reports" / datetime.now().strftime("%Y%m%d-%H%M%S")
    with ExitStack() as stack, waiting("compare", "rows") as wait:
        busy, average = resources.busy(), resources.load_average()
        made, subjects, inputs, judge = (_foreign if options.endpoints else _own)(
            settings, options, stack, say
        )
        made.busy_before, made.load_before = busy, average
        folder.mkdir(parents=True)
        ways = made.ways
        say(f"{len(made.working)} of {len(ways)} ways answer; {busy:.0%} of the processors' time was others'")
        samples = folder / "samples.npz"
        np.savez(samples, **inputs)
        wait.step("readings")
        try:
            with Measuring(settings, subjects, samples, options.plan, say, wait) as measuring:
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
    made.busy_after = resources.busy()
    parts.divide(made)
    if options.price_per_core_hour:
        for row in made.working:
            row.million_cost = words.million(row, options.price_per_core_hour)
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


def _own(
    settings: Settings, options: Options, stack: ExitStack, say: Say
) -> tuple[Report, list[Subject], dict[str, Any], Judge]:
    """The endpoints of what is published, on test rows."""
    model = models.base.load(settings.model)
    if options.target is not None and options.target not in targets.NAMES:
        raise TargetError(f"there is no target {options.target!r}; there are: {', '.join(targets.NAMES)}")
    names = _reached(settings, options.target)
    version = repository.served_version(repository.model_dir(settings.repository, names[0], settings.model))
    if version is None:
        raise TargetError(f"no version of {settings.model} is published; `make deploy` publishes the first")
    if options.source:
        _require_source(settings, names, version, options.source)
    dataset = data.load(model, settings.artifacts, settings.seed)
    rows = subjects.Rows(settings, model, dataset, version, names, stack, say)
    rows.deployed()
    rows.baselines()
    if options.variants:
        rows.variants()
    if options.peers:
        rows.peers(options.peers)
    score = model.spec.task.score
    platform, _ = platforms.choose(settings)
    made = _report(settings.model, version, score, platform.name, rows.subjects, options)
    made.frameworks = frameworks.measured(settings, model, version)
    test = dataset.test.take(slice(options.rows))
    inputs = dict(test.served(model.spec.signature))

    def judge(made: Report, answers: Answers) -> None:
        for row in made.rows:
            if (found := answers.get(row.name)) is not None:
                row.score = model.spec.task.metrics(next(iter(found.values())), test.targets).get(score)
        made.notes += [
            f"{name} is not reached: {why}" for name, why in unreachable(settings, version).items()
        ]
        _pair(made, answers)
        _hold_against_golden(settings, rows.subjects, version)

    return made, rows.subjects, inputs, judge


def _require_source(settings: Settings, names: list[str], version: int, source: str) -> None:
    """Raises `TargetError` where a target has the weights of the other framework."""
    folders = {
        name: repository.version_dir(settings.repository, name, settings.model, version) for name in names
    }
    others = [name for name, folder in folders.items() if repository.read_manifest(folder).source != source]
    if others:
        raise TargetError(
            f"--source {source}: version {version} has other weights in {', '.join(others)}; "
            f"`make deploy SOURCE={source}` publishes one that has the same in all"
        )


def _foreign(
    _settings: Settings, options: Options, _stack: ExitStack, _say: Say
) -> tuple[Report, list[Subject], dict[str, Any], Judge]:
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
    found = list(subjects.foreign(options.endpoints))
    model = endpoints.parse(options.endpoints[0]).model
    return _report(model, 0, "score", "-", found, options), found, inputs, _pair


def _report(
    model: str, version: int, score: str, platform: str, found: list[Subject], options: Options
) -> Report:
    plan = options.plan
    settings = {
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "target_ms": plan.target_ms,
        "connections": plan.connections,
        "batches": list(plan.batches),
        "rows": options.rows or "all",
        "price_per_core_hour": options.price_per_core_hour,
    }
    started = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [subject.row for subject in found]
    return Report(model, version, score, settings, resources.machine(), platform, started, rows)


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
    rows = [
        [f"{row.target} {row.variant}".strip(), row.protocol, *(page.COLUMNS[name](row) for name in columns)]
        for row in made.rows
    ]
    found = [tables.render(header, rows), "", *words.conclusions(made)]
    return [*found, *made.notes, "", f"report: {folder / page.FILE}"]


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


def _hold_against_golden(settings: Settings, found: list[Subject], version: int) -> None:
    """How far each row is from the framework's own answers, which travel with its artifact."""
    for subject in found:
        row = subject.row
        # What another project serves is ONNX Runtime's file.
        target = "onnxruntime" if row.kind == PEER else row.target
        sample = golden.read(repository.version_dir(settings.repository, target, settings.model, version))
        if not row.works or not subject.has_model or sample is None:
            continue
        try:
            client = generator.connect(
                subject.settings or settings, subject.target or row.target, row.protocol, subject.signature
            )
            try:
                answers = client.predict(sample.inputs)
            finally:
                client.close()
            row.difference = max(float(np.abs(answers[n] - own).max()) for n, own in sample.outputs.items())
        except (TandemError, ServerError) as error:
            row.state, row.reason = FAILED, str(error)
