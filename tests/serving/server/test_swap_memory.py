"""Memory after many swaps is what it was."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from .artifacts import point, write_onnx
from .processes import oip_body, tandem_server

MEGABYTE = 1_000_000


@pytest.mark.slow
def test_memory_is_back_at_its_level_after_200_swaps(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "fashion"
    write_onnx(folder, 1)
    write_onnx(folder, 2)
    point(folder, 1)
    server = tandem_server("onnxruntime", tmp_path / "repository", tmp_path / "log", "--poll-seconds=0.02")
    process = psutil.Process(server.process.pid)
    data = oip_body()
    levels: list[float] = []
    try:
        server.wait_for("/v2/health/ready")
        for swap in range(250):
            version = 2 - swap % 2
            point(folder, version)
            server.wait_for("/v2/models/fashion", f'"versions":\\["{version}"\\]')
            assert server.call("POST", "/v2/models/fashion/infer", data).status == 200
            if swap % 50 == 49:
                levels.append(process.memory_full_info().uss / MEGABYTE)
        # The first 50 fill pools of memory and threads that later ones use.
        assert levels[-1] - levels[0] < 2, levels
        assert server.log.count("is unloaded") >= 249
    finally:
        assert server.stop() == 0
    print(levels)
