"""Making images while models train, in a process, which can be ended at any time and leaves the GIL to the training."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

from serving.platforms.base import PlatformError, Watch
from serving.platforms.provision import make_images
from serving.settings import Settings

SPAWN = multiprocessing.get_context("spawn")
Make = Callable[[Settings, Sequence[str], Watch], None]


@contextlib.contextmanager
def making(
    settings: Settings, targets: Sequence[str], watch: Watch, make: Make = make_images
) -> Iterator[Callable[[], None]]:
    """Make the images of `targets` during the block, and wait for them at its end, unless the block fails.

    Yields a function that raises the `PlatformError` of a failure early; the end of the block raises it, too.
    """
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_make, args=(make, settings, targets, sender))
    process.start()
    # Else the pipe would stay open after the end of the process.
    sender.close()
    errors: list[PlatformError] = []

    def listen() -> None:
        with contextlib.suppress(EOFError):
            while said := receiver.recv():
                if isinstance(said, PlatformError):
                    errors.append(said)
                    watch("images", "cannot be made; more when this step has ended")
                else:
                    watch(*said)

    def check() -> None:
        if errors:
            raise errors[0]

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield check
        listener.join()
        process.join()
        check()
        if process.exitcode:
            raise PlatformError(f"the images were not made: their process ended with {process.exitcode}")
    finally:
        process.terminate()
        process.join()
        listener.join()


def _make(make: Make, settings: Settings, targets: Sequence[str], sender: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make(settings, targets, lambda name, text: sender.send((name, text)))
    except PlatformError as error:
        sender.send(error)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
