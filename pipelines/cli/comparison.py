"""`tandem compare`: every endpoint measured on test rows."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import models.base
from models.signature import Arrays
from pipelines import data
from pipelines.cli import frameworks, subjects
from pipelines.data import npz
from pipelines.records import tables
from serving import golden, platforms, repository, targets
from serving.compare import endpoints, page, parts, report, resources, words
from serving.compare.changes import Change, changes
from serving.compare.measure import Measuring, Plan, Subject
from serving.compare.report import FAILED, PEER, Report, ReportError, Row
from serving.progress import waiting
from serving.settings import Settings
from serving.targets.base import TargetError, served_manifest, unreachable

Say = Callable[[str], None]
TERMINAL = {
    **{name: name for name in ("target", "protocol", "p50 ms", "p99 ms", "req/s", "CPU us", "score")},
    "largest difference": "differs",
}
"""The columns of the table in a terminal, of those of the page, and their headings."""
COLUMNS = 80
"""The width of a terminal."""


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
    own = ("target", "variants", "source", "rows")
    if options.endpoint and (given := [name for name in own if getattr(options, name)]):
        raise TargetError(f"--endpoint measures only that server: expected no {given[0]}")
    if options.fail_on and not options.against:
        raise TargetError("--fail-on needs --against, the report to compare with")
    for name in ("rows", "seconds", "rounds", "target_ms", "connections"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise TargetError(f"--{name.replace('_', '-')} {value:g}: expected more than 0")
    return Plan(options.seconds, options.rounds, options.target_ms, options.connections)


def compare(settings: Settings, options: argparse.Namespace, say: Say) -> tuple[Report, Path, list[Change]]:
    """Measure, and write the report, a partial one after Ctrl-C.

    Returns the report, its folder, and the changes since the report of `--against`. Raises `TargetError` if no version
    is published, `ReportError` if the other report cannot be read or is of another model.
    """
    plan = plan_of(options)
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise TargetError(
            "MLPerf LoadGen is not installed, as it has no wheel for this machine; where a C++ compiler is, "
            "`.venv/bin/uv pip install mlcommons-loadgen` builds it"
        )
    (model, *_) = [endpoints.parse(url).model for url in options.endpoint] or [settings.model]
    old = report.load(options.against) if options.against else None
    if old and old.model != model:
        raise ReportError(f"{options.against} is of the model {old.model}: expected one of {model}")
    if old and old.settings["target_ms"] != plan.target_ms:
        raise ReportError(f"{options.against} has rates for --target-ms {old.settings['target_ms']:g}")
    folder = settings.artifacts / "reports" / datetime.now().strftime("%Y%m%d-%H%M%S")
    with ExitStack() as stack, waiting("compare", "rows") as wait:
        # Before the long preparation, as it may not be allowed.
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = stack.enter_context(tempfile.TemporaryDirectory(dir=folder.parent, prefix="."))
        samples = Path(beside) / "samples.npz"
        busy, load = resources.busy(), os.getloadavg()[0]
        prepared = _foreign(model, options) if options.endpoint else _own(settings, options, stack, say)
        made, rows = prepared.report, len(next(iter(prepared.inputs.values())))
        made.busy_before, made.load_before = busy, load
        plan = replace(plan, batches=tuple(size for size in plan.batches if size <= rows))
        made.settings |= asdict(plan)
        answering = f"{len(made.working)} of {len(made.ways)} ways answer"
        say(f"{answering}; {busy:.0%} of the processors' time was others'")
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
        made.load_after = os.getloadavg()[0]
    made.busy_after = resources.busy()
    parts.divide(made)
    if options.price_per_core_hour:
        for row in made.working:
            row.million_cost = words.million(row, options.price_per_core_hour)
    found = changes(old, made) if old else []
    if old and any(old.machine[name] != made.machine[name] for name in ("processor", "cores")):
        made.notes.append(f"{options.against} was measured on another machine.")
    made.notes += map(str, found)
    page.write(made, folder)
    return made, folder, found


def lines(made: Report, folder: Path) -> list[str]:
    """Return a report's lines for the terminal: table, conclusions, path of the page."""
    # Spreads are on the page.
    rows = [[re.sub(r" ±[\d.,]+", "", page.COLUMNS[name](row)) for name in TERMINAL] for row in made.rows]
    told = (
        textwrap.fill(sentence, COLUMNS, break_on_hyphens=False)
        for sentence in (*words.conclusions(made), *made.notes)
    )
    return [tables.render([*TERMINAL.values()], rows), "", *told, "", f"report: {folder / page.FILE}"]


def _own(settings: Settings, options: argparse.Namespace, stack: ExitStack, say: Say) -> Prepared:
    """Prepare the rows of the published version, on test rows."""
    model = models.base.load(settings.model)
    if options.target is not None and options.target not in targets.NAMES:
        raise TargetError(f"there is no target {options.target!r}; there are: {', '.join(targets.NAMES)}")
    version = served_manifest(settings, targets.NAMES[0]).version
    signature = model.spec.signature
    if not signature.batched:
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
    for add in options.more:
        add(rows)
    task = model.spec.task
    platform, _ = platforms.choose(settings)
    made = _report(settings.model, version, task.score, platform.name, rows.subjects, options)
    made.frameworks = frameworks.measured(settings, model, version, rows.subjects)
    made.notes += [*(f"{name} is not reached: {why}" for name, why in closed.items()), *rows.notes]
    test = dataset.test.take(slice(options.rows))

    def score(outputs: Arrays) -> float | None:
        return task.metrics(outputs[signature.outputs[0].name], test.targets).get(task.score)

    return Prepared(made, rows.subjects, test.served(signature), score)


def _foreign(model: str, options: argparse.Namespace) -> Prepared:
    """Prepare rows of servers that Tandem did not start, on the user's samples."""
    inputs = npz.read(options.samples, "an array of rows for each input")
    counts = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise TargetError(
            f"{options.samples}: expected as many rows of each input, and one at least: {counts}"
        )
    found = []
    for url in dict.fromkeys(options.endpoint):
        at = endpoints.parse(url)
        row = Row(f"{at.host}:{at.port}/{at.model}", at.scheme, "-", "a server that Tandem did not start")
        found.append(Subject(row, target=url))
    return Prepared(_report(model, 0, "score", "-", found, options), found, inputs)


def _report(
    model: str, version: int, score: str, platform: str, found: list[Subject], options: argparse.Namespace
) -> Report:
    told = {"rows": options.rows or "all", "price_per_core_hour": options.price_per_core_hour}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [subject.row for subject in found]
    return Report(model, version, score, told, resources.machine(), platform, started, rows)


def _parity(made: Report, answers: Mapping[str, Arrays]) -> list[list[float | None]]:
    """Return the largest difference between the answers of each two rows; None where none can be compared."""

    def apart(left: Arrays, right: Arrays) -> float | None:
        found = [golden.difference(left[name], right[name]) for name in left if name in right]
        return max(found, default=None)

    own = [answers.get(row.name, {}) for row in made.rows]
    return [[apart(left, right) for right in own] for left in own]


def _hold_against_golden(settings: Settings, subject: Subject, version: int, measuring: Measuring) -> None:
    """Set a row's difference from the golden sample, the framework's own answers, which is part of its artifact.

    A row of float32 fails where that is above the sample's tolerance.
    """
    row = subject.row
    # Another project serves ONNX Runtime's file.
    target = "onnxruntime" if row.kind == PEER else row.target
    roots = ((subject.settings or settings).repository, settings.repository)
    folders = (repository.version_dir(root, target, settings.model, version) for root in roots)
    sample = next(filter(None, map(golden.read, folders)), None)
    if sample is None:
        return
    path = measuring.samples.with_name("golden.npz")
    np.savez(path, **sample.inputs)  # type: ignore[arg-type]
    if answers := measuring.ask(subject, path):
        try:
            row.difference = max(
                golden.difference(answers[name], own) for name, own in sample.outputs.items()
            )
            if row.precision == "float32":
                sample.check(answers)
        except (golden.GoldenError, KeyError) as error:
            row.state, row.reason = FAILED, f"answers otherwise than the framework: {error}"
