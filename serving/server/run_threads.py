"""The threads in which models run: a bounded number, which the models take in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

SLOW_SECONDS = 0.1
"""From here on a run is slow: whoever had to wait for it would notice."""
OVERDUE = 2
"""Times the threads of slow runs that may be lent to runs that were taken for quick and are not."""


class RunThreads(ThreadPoolExecutor):
    """At most `most` quick runs at once and as many slow ones (2 where it is less), each in places of their own.

    Each model asks for one run at a time and then queues up again behind the others, so a busy model delays
    another by one run, and slow models delay no quick one. A run that turns out to be slow gives its place back.
    All but the runs themselves belongs to the event loop.
    """

    def __init__(self, most: int) -> None:
        most = max(2, most)
        super().__init__((2 + OVERDUE) * most, thread_name_prefix="run")
        self._free = {False: most, True: most}
        """Places for quick and for slow runs; below 0 where runs are overdue."""
        self._least = -OVERDUE * most
        self._waiting: dict[bool, deque[Callable[[], None]]] = {False: deque(), True: deque()}

    def ask(self, slow: bool, start: Callable[[], None]) -> None:
        """Call `start` as soon as a thread is free for its run: now, or when others have been `leave`d."""
        self._waiting[slow].append(start)
        self._admit(slow)

    def leave(self, slow: bool) -> None:
        """Free the thread of a run that `ask` has started."""
        self._free[slow] += 1
        self._admit(slow)

    def overdue(self) -> bool:
        """Count a run that was taken for quick with the slow ones; whether there is a thread to lend for that."""
        if self._free[True] <= self._least:
            return False
        self._free[True] -= 1
        self.leave(False)
        return True

    def _admit(self, slow: bool) -> None:
        while self._free[slow] > 0 and self._waiting[slow]:
            self._free[slow] -= 1
            self._waiting[slow].popleft()()
