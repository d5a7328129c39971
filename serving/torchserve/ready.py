"""Whether the server's worker has loaded the model: `python -m serving.torchserve.ready` exits 0 where it has.

TorchServe answers `/ping` with 200 before that, and also after its worker was killed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from serving.settings import Settings
from serving.targets.base import TargetError
from serving.torchserve.management import Management


def is_ready(description: Mapping[str, object]) -> bool:
    """Whether a version, as `Management.describe` gives it, has a worker that answers."""
    workers = description["workers"]
    return isinstance(workers, list) and any(worker["status"] == "READY" for worker in workers)


def main() -> None:
    """Ask the server in the same container."""
    settings = Settings.from_environment()
    try:
        description = Management(settings, timeout=3).describe(settings.model)
    except TargetError as error:
        sys.exit(str(error))
    if not description or not is_ready(description):
        sys.exit(f"torchserve: no worker of {settings.model} is ready")


if __name__ == "__main__":
    main()
