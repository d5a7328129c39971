"""What a process grew by while something ran."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import time
import numpy as np
from pipelines.training import growth
before = np.ones(2**24, np.uint8)
with growth() as grown:
    held = np.ones(2**26, np.uint8)
    time.sleep(0.5)
    del held
print(max(grown))
"""


def test_the_most_that_was_held_is_read_and_what_was_there_before_is_not() -> None:
    # In a process of its own: in this one, other tests' memory is given back meanwhile.
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert 2**26 <= int(done.stdout) < 2**26 + 2**23
