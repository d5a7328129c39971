"""What goes on: a bar for downloads, and a live table of the targets on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table

from pipelines.data import Progress
from serving.platforms.base import Watch


class _Rows:
    """Target, what goes on with it, and for how long."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, float]] = {}
        self._settled: dict[str, float] = {}

    def set(self, name: str, text: str) -> None:
        now = time.monotonic()
        self._rows[name] = (text, now)
        self._settled.pop(name, None)
        if text.startswith(("ready", "built")):
            self._settled[name] = now

    def __rich__(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(min_width=12, no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        now = time.monotonic()
        for name, (text, since) in self._rows.items():
            done = name in self._settled
            table.add_row(name, text, "" if done else f"{now - since:.0f} s")
        return table


@contextmanager
def watching(report: Callable[[str], None]) -> Iterator[Watch]:
    """Something to tell of each target what goes on with it."""
    if not sys.stdout.isatty():
        yield lambda name, text: report(f"{name}: {text}")
        return
    rows = _Rows()
    with Live(rows, refresh_per_second=4):
        yield rows.set


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar for downloads, shown once something comes in."""
    from rich import progress as bars

    columns = (*bars.Progress.get_default_columns()[:2], bars.DownloadColumn(), bars.TimeRemainingColumn())
    bar = bars.Progress(*columns)
    tasks: dict[str, bars.TaskID] = {}

    def update(name: str, done: int, total: int) -> None:
        if name not in tasks:
            # Only one live display can be on a terminal, and the trainings have their own.
            bar.start()
            tasks[name] = bar.add_task(name, total=total or None)
        bar.update(tasks[name], completed=done)
        if done == total:
            bar.stop()

    try:
        yield update
    finally:
        # Stopping what never started would print an empty line.
        if tasks:
            bar.stop()
