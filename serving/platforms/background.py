"""What containers need but a version, made while models train.

By a process of its own: it can be ended whatever it waits for, and leaves the interpreter to the training.
"""

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
    """Make the images of `targets` while the block runs, and wait for them at its end; a block that fails ends it.

    Yields what raises, during the block, the `PlatformError` that is raised at its end where an image cannot be made.
    """
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_make, args=(make, settings, targets, sender))
    process.start()
    # Ours would keep the pipe open when the process has ended.
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
