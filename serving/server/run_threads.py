"""The threads in which models run: a bounded number, which the models take in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

SLOW_SECONDS = 0.1
"""From here on a run is slow: whoever had to wait for it would notice."""


class RunThreads(ThreadPoolExecutor):
    """At most `most` runs at once (2 where it is less), and slow ones never in all of the threads.

    Each model asks for one run at a time and then queues up again behind the others, so a busy model delays
    another by one run. As slow runs leave one thread free, slow models delay quick ones by no more than quick runs.
    All but the runs themselves belongs to the event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = max(2, most)
        super().__init__(self._most, thread_name_prefix="run")
        self._quick: deque[Callable[[], None]] = deque()
        self._slow: deque[Callable[[], None]] = deque()
        self._running = 0
        self._running_slow = 0

    def ask(self, slow: bool, start: Callable[[], None]) -> None:
        """Call `start` as soon as a thread is free for its run: now, or when others have been `leave`d."""
        (self._slow if slow else self._quick).append(start)
        self._admit()

    def leave(self, slow: bool) -> None:
        """Free the thread of a run that `ask` has started."""
        self._running -= 1
        self._running_slow -= slow
        self._admit()

    def _admit(self) -> None:
        while self._running < self._most:
            if self._slow and self._running_slow < self._most - 1:
                self._running_slow += 1
                turn = self._slow
            elif self._quick:
                turn = self._quick
            else:
                return
            self._running += 1
            turn.popleft()()
