"""KServe's clients against a server: `kserve_client.py HTTP GRPC`, run in an environment that has kserve.

Asks for the logits of one picture of 0.5 in every form that the clients have, and prints them as JSON by form.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

PICTURE = np.full((1, 28, 28, 1), 0.5, np.float32)


def request(binary: bool, **options: Any) -> InferRequest:
    given = InferInput("image", [1, 28, 28, 1], "FP32")
    given.set_data_from_numpy(PICTURE, binary_data=binary)
    return InferRequest("fashion", [given], request_id="k", **options)


def logits(response: Any) -> list[float]:
    assert response.id == "k"
    found = next(output for output in response.outputs if output.name == "logits")
    values: list[float] = found.as_numpy().ravel().tolist()
    return values


async def main(http: str, grpc: str) -> None:
    answers: dict[str, list[float]] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as rest, InferenceGRPCClient(grpc) as client:
        base = f"http://{http}"
        assert await rest.is_server_live(base)
        assert await rest.is_server_ready(base)
        assert await rest.is_model_ready(base, "fashion")
        assert not await rest.is_model_ready(base, "nope")
        one = [RequestedOutput("logits", parameters={"binary_data": True})]
        for form, asked in {
            "json": request(False),
            "binary": request(True, parameters={"binary_data_output": True}),
            "mixed": request(False, request_outputs=one),
        }.items():
            answers[form] = logits(await rest.infer(base, asked, model_name="fashion"))
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("fashion")
        assert not await client.is_model_ready("nope")
        answers["grpc"] = logits(await client.infer(request(False)))
        answers["grpc raw"] = logits(await client.infer(request(True)))
    print(json.dumps(answers))


asyncio.run(main(*sys.argv[1:]))
