"""What runs of a model cost by their size: how many rows are worth a run, and which runs are sure to be short."""

from __future__ import annotations

from dataclasses import dataclass, field

WEIGHT = 0.2
"""Of the newest run in the averages."""
BELIEVED = 5
"""Runs of a size before its average is believed."""
TOLERANCE = 1.1
"""Times what single runs cost: measurements differ by as much."""
SHORT_SECONDS = 0.005
"""A run shorter than this blocks the event loop for less than a thread would cost."""
PROOF = 32
"""Short runs in a row after which the next one of their size is believed to be short, too. After a long one it takes
as many times more as that one was longer than a short one: so a model whose values decide how long it runs holds up
the event loop for less than `SHORT_SECONDS` in `PROOF` runs, all in all, however it is asked."""
RETRY = 64
"""Withheld once so often, a size is tried again: what made it slow may be gone."""


@dataclass(slots=True)
class _Average:
    row_seconds: float = 0.0
    runs: int = 0
    short: int = 0
    """Short runs since the last one that was not; less by as many as that one was too long."""

    def add(self, row_seconds: float, seconds: float) -> None:
        self.runs += 1
        if seconds < SHORT_SECONDS:
            self.short += 1
        else:
            self.distrust(seconds)
        # A plain mean at first, so that the first run weighs no more than its neighbours.
        self.row_seconds += max(WEIGHT, 1 / self.runs) * (row_seconds - self.row_seconds)

    def distrust(self, seconds: float) -> None:
        self.short = min(self.short, PROOF - int(PROOF * seconds / SHORT_SECONDS))


@dataclass
class RunCosts:
    """Average seconds per row, by sizes of 1, 2, 3 to 4, 5 to 8, ... rows.

    `limit` is the backend's own best: the rows up to which a shared run has been no slower per row than single
    runs. A size that was never tried passes; one that is withheld is tried again now and then. Single runs are
    measured whenever a request comes alone, and again as soon as all sizes above are withheld: so both sides of
    the comparison follow the load of the machine.
    """

    single_seconds: float
    """Of one row as the warm-up has shown it; 0: unknown."""
    _sizes: dict[int, _Average] = field(default_factory=dict)
    _withheld: int = 0

    def __post_init__(self) -> None:
        if self.single_seconds > 0:
            short = self.single_seconds < SHORT_SECONDS
            self._sizes[0] = _Average(self.single_seconds, 1, PROOF if short else 0)

    def add(self, rows: int, seconds: float) -> None:
        """Note a run."""
        rows = max(rows, 1)
        average = self._sizes.get(_size(rows))
        if average is None:
            average = self._sizes[_size(rows)] = _Average()
        average.add(seconds / rows, seconds)

    def doubt(self, rows: int, seconds: float) -> None:
        """Note that a run which goes on, or has failed, has taken so long."""
        if seconds >= SHORT_SECONDS and _size(rows) in self._sizes:
            self._sizes[_size(rows)].distrust(seconds)

    def short(self, rows: int) -> bool:
        """Whether a run is sure to be short: all the last ones of its size were, for means hide what may come."""
        average = self._sizes.get(_size(rows))
        return average is not None and average.short >= PROOF

    def expected(self, rows: int) -> float:
        """Seconds that a run should take; 0 where nothing is known."""
        size = _size(rows)
        while size >= 0:
            if size in self._sizes:
                return rows * self._sizes[size].row_seconds
            size -= 1
        return min((rows * average.row_seconds for average in self._sizes.values()), default=0.0)

    def limit(self, queued: int, most: int) -> int:
        """How many of the `queued` rows to run together, at most `most`."""
        wanted = min(queued, most)
        single = self._sizes.get(0)
        if single is None:
            return wanted
        for size in range(1, _size(wanted) + 1):
            average = self._sizes.get(size)
            if average is None or average.runs < BELIEVED:
                continue
            if average.row_seconds > TOLERANCE * single.row_seconds:
                self._withheld += 1
                return wanted if self._withheld % RETRY == 0 else 1 << (size - 1)
        return wanted


def _size(rows: int) -> int:
    return max(rows - 1, 0).bit_length()
