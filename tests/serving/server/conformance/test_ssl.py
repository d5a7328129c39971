"""gRPC over TLS: main.cc (--ssl_config_file), config/ssl_config.proto, serving_config ("Miscellaneous Flags")."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..processes import running_tfs
from .clients import Grpc, code_and_details, eventually, floats, predict_request

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificates with openssl")


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """The key and the certificate, signed by itself, of localhost; PEM."""
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert}".split()
    subprocess.run([*command, *names], check=True, capture_output=True)
    return key.read_text(), cert.read_text()


def predict(address: str, *credentials: bytes) -> Any:
    """One Predict over TLS; credentials: the roots, then the client's own key and certificate."""
    import grpc
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(*credentials), options) as channel:
        request = predict_request("default", x=floats([2.0]))
        return PredictionServiceStub(channel).Predict(request, 10)


@pytest.mark.parametrize("verify", [False, True])
def test_tls(models: Path, tmp_path: Path, verify: bool) -> None:
    """server.cc: key and certificate; client_verify asks for the client's certificate, signed by custom_ca."""
    key, cert = certificate(tmp_path, "server")
    client_key, client_cert = certificate(tmp_path, "client")
    config = tmp_path / "ssl.config"
    fields = {"server_key": key, "server_cert": cert, "custom_ca": client_cert}
    text = "".join(f"{name}: {json.dumps(pem)}\n" for name, pem in fields.items())
    config.write_text(f"{text}client_verify: {json.dumps(verify)}\n")
    flags = (f"--model_base_path={models}/half_plus", f"--ssl_config_file={config}")
    own = (client_key.encode(), client_cert.encode()) if verify else ()
    with running_tfs(tmp_path, *flags) as server:
        answer = eventually(lambda: predict(server.grpc, cert.encode(), *own))
        assert list(answer.outputs["y"].float_val) == [4.0]
        if verify:
            assert code_and_details(predict, server.grpc, cert.encode())[0] == "UNAVAILABLE"
        with Grpc(server.grpc) as without:
            assert code_and_details(without.status, "default")[0] == "UNAVAILABLE"
