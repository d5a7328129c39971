"""KServe's own clients, unpatched, in an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .artifacts import logits
from .processes import ServerProcess

ENVIRONMENT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tandem" / "kserve-0.21.0"
SCRIPT = Path(__file__).with_name("kserve_client.py")


@pytest.fixture(scope="session")
def kserve_python() -> Path:
    """The interpreter of an environment with kserve, made once."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "made").exists():
        # As the developer's pip is set up; uv reads neither pip's configuration nor the system's certificates.
        asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        index = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        environment = {"UV_NATIVE_TLS": "1", **({"UV_DEFAULT_INDEX": index} if index else {}), **os.environ}
        uv = [sys.executable, "-m", "uv"]
        subprocess.run(
            [*uv, "venv", "-q", "--clear", "--python", sys.executable, str(ENVIRONMENT)], check=True
        )
        install = [*uv, "pip", "install", "-q", "--python", str(python), "kserve==0.21.0"]
        made = subprocess.run(install, capture_output=True, text=True, env=environment)
        if "error sending request" in made.stderr or "dns error" in made.stderr:
            pytest.skip(f"no package index can be reached: {made.stderr[-300:]}")
        assert made.returncode == 0, made.stderr
        (ENVIRONMENT / "made").touch()
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kserve_s_clients_get_the_model_s_answer_in_every_form(
    oip: ServerProcess, kserve_python: Path
) -> None:
    # -P: else the folder `http` beside the script would stand for Python's own.
    ran = subprocess.run(
        [kserve_python, "-P", SCRIPT, oip.http, oip.grpc], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    expected = logits(np.full((1, 28, 28, 1), 0.5, np.float32))[0]
    assert set(answers) == {"json", "binary", "mixed", "grpc", "grpc raw"}
    for form, answer in answers.items():
        np.testing.assert_allclose(answer, expected, atol=1e-5, err_msg=form)
