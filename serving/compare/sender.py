"""The generator's process, as the comparison sees it: it is given jobs, and ended where one takes too long."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from serving.compare import generator
from serving.compare.generator import GeneratorError, Job, Result
from serving.settings import PREFIX, Settings

PATIENCE_SECONDS = 60.0
"""What a generator may take beyond the time that it was given: start, warm-up, requests that wait."""


class Generator:
    """A process that does one job after the other, until it is closed."""

    def __init__(self, settings: Settings) -> None:
        self._environment = os.environ | {
            PREFIX + field.name.upper(): _text(getattr(settings, field.name))
            for field in dataclasses.fields(settings)
        }
        self._answers = ThreadPoolExecutor(1)
        self._process = subprocess.Popen(
            [sys.executable, "-m", generator.__name__],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def is_alive(self) -> bool:
        """Return False where it has ended, or was ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._answers.shutdown()

    def do(self, job: Job) -> Result:
        """Raises `GeneratorError` with the job's error, or where it takes too long: then the process is ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        allowed = 4 * job.seconds + PATIENCE_SECONDS
        try:
            self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
            self._process.stdin.flush()
            line = self._answers.submit(self._process.stdout.readline).result(allowed)
        except TimeoutError:
            self._process.kill()
            self._process.wait()
            raise GeneratorError(f"no result within {allowed:.0f} s: requests get no answer") from None
        except BrokenPipeError:
            line = ""
        if not line:
            raise GeneratorError("the generator has ended without a word")
        return generator.read(line)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
