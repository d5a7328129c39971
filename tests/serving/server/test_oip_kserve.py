"""KServe's own clients, unpatched, in an environment of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.compare import environments

from .artifacts import logits
from .processes import ROOT, ServerProcess

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tandem"
PINS = ROOT / "tests" / "benchmarks" / "peers" / "kserve.txt"
SCRIPT = Path(__file__).with_name("kserve_client.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kserve_s_clients_get_the_model_s_answer_in_every_form(oip: ServerProcess) -> None:
    try:
        python = environments.install(PINS, CACHE / "kserve", Path(sys.executable))
    except environments.InstallError as error:
        if re.search("error sending request|dns error", str(error)):
            pytest.skip(f"no package index can be reached: {str(error)[-300:]}")
        raise
    ran = subprocess.run([python, SCRIPT, oip.http, oip.grpc], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    expected = logits(np.full((1, 28, 28, 1), 0.5, np.float32))[0]
    assert set(answers) == {"json", "binary", "mixed", "grpc", "grpc raw"}
    for form, answer in answers.items():
        np.testing.assert_allclose(answer, expected, atol=1e-5, err_msg=form)
