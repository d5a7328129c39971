"""Progress of long work: a live display on a terminal, lines in a log.

A command opens the display with `showing`. Long work inside, on any thread, is shown with `waiting`; a step announced
with `say` lasts until the next one.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

QUIET_SECONDS = 8.0
"""After so long without a line, a log repeats the current waits."""


@dataclass
class Wait:
    """Work in progress. `usually` is its usual duration in seconds on two cores; 0: unknown."""

    name: str
    text: str
    usually: float = 0.0
    detail: str = ""
    share: float = 0.0
    """The part that is done, 0..1; 0 if unknown."""
    since: float = field(default_factory=time.monotonic)
    """The start of the current step; `opened` is the start of the first one."""
    opened: float = field(default_factory=time.monotonic)

    def step(self, text: str) -> None:
        """Begin another step; in a log this is a line."""
        self.text, self.detail, self.share, self.since = text, "", 0.0, time.monotonic()
        _display.stepped(self)

    def advance(self, detail: str, done: float = 0.0, total: float = 0.0) -> None:
        """Report progress, as often as you like: a log shows it only when it would be silent otherwise."""
        self.detail, self.share = detail, min(1.0, done / total) if total else 0.0

    def duration(self, now: float) -> str:
        """Return the time so far, and the time left or the usual time."""
        seconds = now - self.since
        if 0.05 < self.share < 1 and seconds > 3:
            return f"{_spell(seconds)}, about {_spell(seconds / self.share - seconds)} left"
        return f"{_spell(seconds)}, usually {_spell(self.usually)}" if self.usually else _spell(seconds)


@contextmanager
def waiting(name: str, text: str, usually: float = 0.0) -> Iterator[Wait]:
    """Show `name` until the block ends, then its last text."""
    display = _display
    wait = display.opened(Wait(name, text, usually))
    try:
        yield wait
    finally:
        display.closed(wait)


@contextmanager
def watching() -> Iterator[Callable[[str, str], None]]:
    """Yield a function that shows a text for a name; a text that begins with ready, built or embedded ends its wait."""
    display, waits = _display, dict[str, Wait]()

    def tell(name: str, text: str) -> None:
        if name in waits:
            waits[name].step(text)
        else:
            waits[name] = display.opened(Wait(name, text))
        if text.startswith(("ready", "built", "embedded")):
            display.closed(waits.pop(name))

    try:
        yield tell
    finally:
        for wait in waits.values():
            display.closed(wait)


@contextmanager
def showing(usually: Mapping[str, float] | None = None) -> Iterator[None]:
    """Open the display. `usually` has the usual seconds of steps by the beginning of their line."""
    global _display  # noqa: PLW0603 - a terminal has room for one live display
    before, _display = _display, (_Terminal if sys.stdout.isatty() else _Log)(usually or {})
    try:
        with _display.running():
            yield
    finally:
        _display = before


def relay(send: Callable[..., None]) -> None:
    """Forward progress to another process: `send` gets the name of a function of this module and its arguments."""
    global _display  # noqa: PLW0603 - see `showing`
    _display = _Relay(send)


def say(line: str) -> None:
    """Announce a step."""
    _display.say(line)


def note(line: str) -> None:
    """Report a result within the current step."""
    _display.note(line)


def advance(detail: str, done: float, total: float) -> None:
    """Report progress of the current step."""
    _display.advance(detail, done, total)


class _Log:
    """The display in a log: a line for each step, repeated with its progress if it takes long."""

    def __init__(self, usually: Mapping[str, float]) -> None:
        self._usually = usually
        self._said: Wait | None = None
        self._waits: list[Wait] = []
        self._lock = threading.RLock()
        self._last = time.monotonic()

    @contextmanager
    def running(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._remind, args=[ended], daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def say(self, line: str) -> None:
        usually = next((s for start, s in self._usually.items() if line.startswith(start)), 0.0)
        self._said = Wait("", line, usually)
        self._write(f"==> {line}{_expected(self._said)}")

    def note(self, line: str) -> None:
        self._write(f"    {line}")

    def advance(self, detail: str, done: float, total: float) -> None:
        if self._said is not None:
            self._said.advance(detail, done, total)

    def opened(self, wait: Wait) -> Wait:
        with self._lock:
            self._waits.append(wait)
        self.stepped(wait)
        return wait

    def stepped(self, wait: Wait) -> None:
        self._write(f"==> {wait.name}: {wait.text}{_expected(wait)}")

    def closed(self, wait: Wait) -> None:
        with self._lock:
            self._waits.remove(wait)

    def current(self) -> list[Wait]:
        """Return the current waits: all open ones, and the last step unless waits of its own have replaced it."""
        said, oldest = self._said, min((wait.opened for wait in self._waits), default=0.0)
        return [*([said] if said and said.since >= oldest else []), *self._waits]

    def _remind(self, ended: threading.Event) -> None:
        while not ended.wait(0.5):
            # The reader of a pipe may be gone.
            with self._lock, suppress(OSError):
                now = time.monotonic()
                for wait in self.current() if now - self._last >= QUIET_SECONDS else []:
                    name = f"{wait.name}: " if wait.name else ""
                    self.note(f"{name}{wait.detail or wait.text}, {wait.duration(now)}")

    def _write(self, line: str) -> None:
        with self._lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            self._last = time.monotonic()


class _Relay(_Log):
    """The display in a process whose parent shows the progress."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__({})
        self._send = send

    def note(self, line: str) -> None:
        self._send("note", line)

    def advance(self, detail: str, done: float, total: float) -> None:
        self._send("advance", detail, done, total)


class _Terminal(_Log):
    """The display on a terminal: lines for ended waits, and a live table below."""

    @contextmanager
    def running(self) -> Iterator[None]:
        from rich.live import Live

        # Lines that others print appear above the table.
        with Live(self, refresh_per_second=4, transient=True):
            yield

    def stepped(self, wait: Wait) -> None:
        """Do nothing: the table shows the step."""

    def closed(self, wait: Wait) -> None:
        super().closed(wait)
        self._write(f"==> {wait.name}: {wait.text}")

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False, expand=True)
        table.add_column(min_width=12, no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        table.add_column(justify="right", no_wrap=True)
        # Without the lock: the writer of a line holds it and waits for the table to be drawn.
        for wait in self.current():
            # The text of a step is in a line above.
            text = f"{wait.text}: {wait.detail}" if wait.detail and wait.name else wait.detail or wait.text
            table.add_row(wait.name, Text(text), wait.duration(time.monotonic()))
        return table


def _spell(seconds: float) -> str:
    """Return a duration in words: 40 s, 3 min."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _expected(wait: Wait) -> str:
    return f" (usually {_spell(wait.usually)})" if wait.usually else ""


_display = _Log({})
"""Prints lines until a command opens another."""
