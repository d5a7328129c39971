"""What containers need but a version, made by a process of its own while models train.

`python -m serving.platforms.background TARGET...` makes it, and tells by lines of JSON: a name and what goes on with
it, or an error at the end. A process can be ended whatever it waits for, and leaves the interpreter to the training.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from serving.platforms.base import PlatformError, Watch
from serving.settings import PREFIX, Settings


@contextlib.contextmanager
def making(settings: Settings, targets: Sequence[str], watch: Watch) -> Iterator[Callable[[], None]]:
    """Make the images of `targets` while the block runs, and wait for them at its end; a block that fails ends it.

    Yields what raises, during the block, the `PlatformError` that is raised at its end where an image cannot be made.
    """
    environment = {
        PREFIX + name.upper(): str(int(value) if isinstance(value, bool) else value)
        for name, value in vars(settings).items()
    }
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *targets],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    errors: list[str] = []

    def listen() -> None:
        for line in process.stdout or ():
            said: dict[str, str] = json.loads(line)
            if "error" in said:
                errors.append(said["error"])
                watch("images", "cannot be made; more when this step has ended")
            else:
                watch(said["name"], said["text"])

    def check() -> None:
        if errors:
            raise PlatformError(errors[0])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield check
        listener.join()
        if process.wait() and not errors:
            raise PlatformError(f"the images were not made: their process ended with {process.returncode}")
        check()
    finally:
        process.terminate()
        process.wait()
        listener.join()


def main() -> None:
    """Make the images of the targets that are named."""
    from serving.platforms.provision import make_images

    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def tell(**said: str) -> None:
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    try:
        make_images(Settings.from_environment(), sys.argv[1:], lambda name, text: tell(name=name, text=text))
    except PlatformError as error:
        tell(error=str(error))
        sys.exit(1)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)


if __name__ == "__main__":
    main()
