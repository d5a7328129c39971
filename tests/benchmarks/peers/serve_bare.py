"""The floor: the least that Python can do on the same libraries as tandem-server, right or wrong.

No routes, no checks, no limits, no queue, no metrics, no versions, no errors: what a server costs above this is
what it does for its users.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import orjson
import uvicorn
import uvloop
from onnx_model import OnnxModel, arguments
from tritonclient.grpc import service_pb2 as pb

HEADER_LENGTH = b"inference-header-content-length"
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def http_app(model: OnnxModel) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    """An ASGI application that takes any request for an inference, in JSON or with binary tensors both ways."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        message = await receive()
        body: bytes = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        length = dict(scope["headers"]).get(HEADER_LENGTH)
        (tensor,) = orjson.loads(body if length is None else body[: int(length)])["inputs"]
        if length is None:
            data = np.array(tensor["data"], np.float32)
        else:
            data = np.frombuffer(body, np.float32, offset=int(length))
        outputs, blobs = [], []
        for name, values in model(data.reshape(tensor["shape"])).items():
            output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": values.shape}
            if length is None:
                output["data"] = values.ravel()
            else:
                output["parameters"] = {"binary_data_size": values.nbytes}
                blobs.append(values.tobytes())
            outputs.append(output)
        content = orjson.dumps({"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [] if length is None else [(HEADER_LENGTH, b"%d" % len(content))]
        content = b"".join([content, *blobs])
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


def grpc_method(model: OnnxModel) -> Callable[[pb.ModelInferRequest, Any], Awaitable[pb.ModelInferResponse]]:
    """The same as a gRPC method."""

    async def infer(request: pb.ModelInferRequest, _context: object) -> pb.ModelInferResponse:
        (tensor,) = request.inputs
        data = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tensor.shape)
        response = pb.ModelInferResponse()
        for name, values in model(data).items():
            response.outputs.add(name=name, datatype="FP32", shape=values.shape)
            response.raw_output_contents.append(values.tobytes())
        return response

    return infer


async def _serve() -> None:
    options = arguments()
    model = OnnxModel()
    method = grpc.unary_unary_rpc_method_handler(
        grpc_method(model), pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{options.grpc_port}")
    await server.start()
    config = uvicorn.Config(
        http_app(model),
        port=options.http_port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
