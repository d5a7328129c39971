"""How TensorFlow Serving's front starts, and does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .artifacts import write_zoo
from .processes import assert_matches, tandem_tf_serving
from .warm_up_records import predict_log, write_warm_up

pytestmark = pytest.mark.slow


def test_bad_warm_up_records_refuse_the_version(tmp_path: Path) -> None:
    """One server, three versions: a record of a signature that is not there, garbage, and no TFRecords at all."""
    for number, records in ((1, [predict_log("nope")]), (2, [b"garbage"]), (3, [predict_log("total")])):
        write_zoo(tmp_path / "zoo" / str(number))
        write_warm_up(tmp_path / "zoo" / str(number), *records)
    write_zoo(tmp_path / "zoo" / "4")
    (tmp_path / "zoo" / "4" / "assets.extra").mkdir()
    (tmp_path / "zoo" / "4" / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"garbage" * 9)
    config = tmp_path / "models.config"
    every = f'name: "zoo" base_path: "{tmp_path}/zoo" model_platform: "tensorflow" model_version_policy {{ all {{}} }}'
    config.write_text(f"model_config_list {{ config {{ {every} }} }}")
    server = tandem_tf_serving(tmp_path / "log", f"--model_config_file={config}")
    try:
        server.wait_for_log("version 4 is refused", 60)
        statuses = server.wait_for("/v1/models/zoo", "Please verify").json()["model_version_status"]
        reasons = ["TFRecord format", "Missing but required: {x}", "Failed to parse", 'key "nope" not found']
        assert [status["state"] for status in statuses] == ["END"] * 4
        for status, reason in zip(statuses, reasons, strict=True):
            assert status["status"]["error_code"] == "FAILED_PRECONDITION"
            assert reason in status["status"]["error_message"], json.dumps(statuses)
        refused = server.call("POST", "/v1/models/zoo:predict", {"instances": [1.0]})
        assert refused.status == 404
        assert_matches(r"Servable not found for request: Latest\(zoo\); .*warmup", refused.error)
    finally:
        assert server.stop() == 0


def test_sigterm_does_not_wait_for_tensorflows_import(tmp_path: Path) -> None:
    server = tandem_tf_serving(tmp_path / "log", f"--model_base_path={tmp_path}")
    server.wait_for_log("HTTP on", 60)  # What comes next is the import, which takes seconds.
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert "stopping" not in server.log, "which it says when the import has ended"
