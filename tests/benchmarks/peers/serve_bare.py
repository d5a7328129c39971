"""The floor: the least that Python can do on the same libraries as tandem-server, right or wrong.

No routes, no checks, no limits, no batches, no metrics, no versions, no errors: what a server costs above this is
what it does for its users. It runs in this project's own environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
import numpy as np
import orjson
import uvicorn
import uvloop
from onnx_model import Floats, OnnxModel, arguments
from tritonclient.grpc import service_pb2 as pb

HEADER_LENGTH = b"inference-header-content-length"
Message = Mapping[str, Any]


class Bare:
    """One model by HTTP and gRPC."""

    def __init__(self) -> None:
        self._model = OnnxModel()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """The ASGI application: any request is an inference, in JSON or with binary tensors both ways."""
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        header_length = dict(scope["headers"]).get(HEADER_LENGTH)
        if header_length is None:
            (tensor,) = orjson.loads(body)["inputs"]
            data = np.array(tensor["data"], np.float32)
        else:
            (tensor,) = orjson.loads(body[: int(header_length)])["inputs"]
            data = np.frombuffer(body, np.float32, offset=int(header_length))
        answer = self._model(data.reshape(tensor["shape"]))
        headers = []
        if header_length is None:
            outputs = [_describe(name, values) | {"data": values.ravel()} for name, values in answer.items()]
            content = orjson.dumps({"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        else:
            raw = [values.tobytes() for values in answer.values()]
            outputs = [
                _describe(name, values) | {"parameters": {"binary_data_size": values.nbytes}}
                for name, values in answer.items()
            ]
            header = orjson.dumps({"outputs": outputs})
            content = b"".join([header, *raw])
            headers = [(HEADER_LENGTH, str(len(header)).encode())]
        headers.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def infer(self, request: pb.ModelInferRequest, _context: object) -> pb.ModelInferResponse:
        """The gRPC method."""
        (tensor,) = request.inputs
        data = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tensor.shape)
        response = pb.ModelInferResponse()
        for name, values in self._model(data).items():
            response.outputs.add(name=name, datatype="FP32", shape=values.shape)
            response.raw_output_contents.append(values.tobytes())
        return response


def _describe(name: str, values: Floats) -> dict[str, object]:
    return {"name": name, "datatype": "FP32", "shape": list(values.shape)}


async def _serve() -> None:
    options = arguments()
    bare: Any = Bare()
    method = grpc.unary_unary_rpc_method_handler(
        bare.infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{options.grpc_port}")
    await server.start()
    config = uvicorn.Config(
        bare, port=options.http_port, http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
