"""`tandem compare`: every endpoint measured on test rows."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import models.base
from models.signature import Arrays
from pipelines import data
from pipelines.cli import frameworks, subjects
from pipelines.records import tables
from serving import golden, platforms, repository, targets
from serving.compare import endpoints, page, parts, peers, report, resources, words
from serving.compare.changes import Change, changes
from serving.compare.measure import Measuring, Plan, Subject
from serving.compare.report import PEER, Report, ReportError, Row
from serving.progress import waiting
from serving.settings import Settings
from serving.targets.base import TargetError, served_manifest, unreachable

Say = Callable[[str], None]
SUMMARY = "summary.md"


@dataclass
class Prepared:
    """A comparison before it is measured: the report without figures, the ways to its rows, and their samples."""

    report: Report
    subjects: list[Subject]
    inputs: Arrays
    score: Callable[[Arrays], float | None] = lambda _: None
    """Return the task's score of a row's answers."""


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan of these options. Raises `TargetError` if they contradict each other."""
    if bool(options.endpoint) != (options.samples is not None):
        raise TargetError("--endpoint and --samples need each other: the inputs to send, and where")
    if options.rows is not None and options.rows < max(Plan.batches):
        raise TargetError(
            f"--rows {options.rows}: expected at least {max(Plan.batches)}, the largest request"
        )
    for name in ("seconds", "rounds", "target_ms", "connections"):
        if not getattr(options, name) > 0:
            option = name.replace("_", "-")
            raise TargetError(f"--{option} {getattr(options, name):g}: expected more than 0")
    if options.peers is not None:
        peers.read(options.peers)
    return Plan(options.seconds, options.rounds, options.target_ms, options.connections)


def compare(settings: Settings, options: argparse.Namespace, say: Say) -> tuple[Report, Path, list[Change]]:
    """Measure, and write the report, a partial one after Ctrl-C.

    Returns the report, its folder, and the changes since the report of `--against`. Raises `TargetError` if no version
    is published, `ReportError` if the other report cannot be read.
    """
    plan = plan_of(options)
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise TargetError(
            "MLPerf LoadGen is not installed, as it has no wheel for this machine; where a C++ compiler is, "
            "`.venv/bin/uv pip install mlcommons-loadgen` builds it"
        )
    old = report.load(options.against) if options.against else None
    folder = settings.artifacts / "reports" / datetime.now().strftime("%Y%m%d-%H%M%S")
    with ExitStack() as stack, waiting("compare", "rows") as wait:
        busy, load = resources.busy(), os.getloadavg()[0]
        prepared = _foreign(options) if options.endpoint else _own(settings, options, stack, say)
        made = prepared.report
        made.busy_before, made.load_before = busy, load
        folder.mkdir(parents=True)
        answering = f"{len(made.working)} of {len(made.ways)} ways answer"
        say(f"{answering}; {busy:.0%} of the processors' time was others'")
        samples = folder / "samples.npz"
        np.savez(samples, **prepared.inputs)  # type: ignore[arg-type]
        wait.step("readings")
        try:
            with Measuring(settings, prepared.subjects, samples, plan, say, wait) as measuring:
                answers = measuring.answers()
                made.parity = _parity(made, answers)
                for subject in prepared.subjects:
                    if outputs := answers.get(subject.row.name):
                        subject.row.score = prepared.score(outputs)
                    _hold_against_golden(settings, subject, made.version, measuring)
                for own in (own for own in made.frameworks if own.score is None and not options.rows):
                    own.score = next((row.score for row in made.rows if row.framework == own.name), None)
                measuring.latencies()
                measuring.rates()
                measuring.batches()
        except KeyboardInterrupt:
            made.partial = True
        finally:
            for file in folder.glob("*.npz"):
                file.unlink()
        made.load_after = os.getloadavg()[0]
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
    """Read the report at `path`, or the newest one. Raises `ReportError`."""
    found = [path] if path else sorted((settings.artifacts / "reports").glob(f"*/{report.FILE}"))
    if not found:
        raise ReportError("there is no report to decide from; `make compare` makes one")
    return report.load(found[-1])


def write(made: Report, folder: Path) -> None:
    """Write the report as data, page, Markdown and CSV."""
    report.save(made, folder)
    (folder / page.FILE).write_text(page.html(made))
    (folder / SUMMARY).write_text(page.markdown(made))
    (folder / "rows.csv").write_text(page.comma_separated(made))


def lines(made: Report, folder: Path) -> list[str]:
    """Return a report's lines for the terminal: table, conclusions, path of the page."""
    columns = ["target", "protocol", "p50 ms", "p99 ms", "req/s", "CPU us", "score", "largest difference"]
    rows = [[page.COLUMNS[name](row) for name in columns] for row in made.rows]
    found = [tables.render([*columns[:-1], "difference"], rows), "", *words.conclusions(made)]
    return [*found, *made.notes, "", f"report: {folder / page.FILE}"]


def _own(settings: Settings, options: argparse.Namespace, stack: ExitStack, say: Say) -> Prepared:
    """Prepare the rows of the published version, on test rows."""
    model = models.base.load(settings.model)
    if options.target is not None and options.target not in targets.NAMES:
        raise TargetError(f"there is no target {options.target!r}; there are: {', '.join(targets.NAMES)}")
    version = served_manifest(settings, targets.NAMES[0]).version
    if not model.spec.signature.batched:
        raise TargetError(
            f"{settings.model} is not batched, and the comparison sends rows; `tandem predict` asks it"
        )
    closed = unreachable(settings, version)
    if options.target in closed:
        raise TargetError(f"{options.target} is not reached: {closed[options.target]}")
    names = [options.target] if options.target else [name for name in targets.NAMES if name not in closed]
    dataset = data.load(model, settings.artifacts, settings.seed)
    rows = subjects.Rows(settings, model, dataset, version, names, stack, say, options.source or "")
    rows.deployed()
    rows.converted()
    rows.baselines()
    if options.variants:
        rows.variants()
    if options.peers:
        rows.peers(options.peers)
    task = model.spec.task
    platform, _ = platforms.choose(settings)
    made = _report(settings.model, version, task.score, platform.name, rows.subjects, options)
    made.frameworks = frameworks.measured(settings, model, version, rows.subjects)
    made.notes += [*(f"{name} is not reached: {why}" for name, why in closed.items()), *rows.notes]
    test = dataset.test.take(slice(options.rows))

    def score(outputs: Arrays) -> float | None:
        return task.metrics(next(iter(outputs.values())), test.targets).get(task.score)

    return Prepared(made, rows.subjects, test.served(model.spec.signature), score)


def _foreign(options: argparse.Namespace) -> Prepared:
    """Prepare rows of servers that Tandem did not start, on the user's samples."""
    assert options.samples is not None
    try:
        with np.load(options.samples) as stored:
            inputs = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise TargetError(f"{options.samples} cannot be read as .npz: {error}") from None
    if not inputs or min(map(len, inputs.values())) < max(Plan.batches):
        raise TargetError(f"{options.samples}: expected at least {max(Plan.batches)} rows of each input")
    others = "a server that Tandem did not start"
    found = [Subject(Row(url, endpoints.parse(url).scheme, "-", others)) for url in options.endpoint]
    model = endpoints.parse(options.endpoint[0]).model
    return Prepared(_report(model, 0, "score", "-", found, options), found, inputs)


def _report(
    model: str, version: int, score: str, platform: str, found: list[Subject], options: argparse.Namespace
) -> Report:
    told = dataclasses.asdict(plan_of(options))
    told |= {"rows": options.rows or "all", "price_per_core_hour": options.price_per_core_hour}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [subject.row for subject in found]
    return Report(model, version, score, told, resources.machine(), platform, started, rows)


def _parity(made: Report, answers: Mapping[str, Arrays]) -> list[list[float | None]]:
    """Return the largest difference between the answers of each two rows; None where one has no answer."""

    def apart(left: Arrays | None, right: Arrays | None) -> float | None:
        if left is None or right is None:
            return None
        return max(float(np.abs(left[name] - right[name]).max()) for name in left if name in right)

    own = [answers.get(row.name) for row in made.rows]
    return [[apart(left, right) for right in own] for left in own]


def _hold_against_golden(settings: Settings, subject: Subject, version: int, measuring: Measuring) -> None:
    """Set a row's difference from the golden sample, the framework's own answers, which is part of its artifact."""
    # Another project serves ONNX Runtime's file.
    target = "onnxruntime" if subject.row.kind == PEER else subject.row.target
    for root in ((subject.settings or settings).repository, settings.repository):
        sample = golden.read(repository.version_dir(root, target, settings.model, version))
        if sample is not None:
            path = measuring.samples.with_name("golden.npz")
            np.savez(path, **sample.inputs)  # type: ignore[arg-type]
            if answers := measuring.ask(subject, path):
                apart = [np.abs(answers[name] - own).max() for name, own in sample.outputs.items()]
                subject.row.difference = float(max(apart))
            return
