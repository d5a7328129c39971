"""The floor: the least that Python can do on the same libraries as tandem-server, right or wrong.

No routes, no checks, no limits, no batches, no metrics, no versions, no errors: what a server costs above this is
what it does for its users. It runs in this project's own environment.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import httptools
import numpy as np
import orjson
import uvloop
from onnx_model import Floats, OnnxModel, arguments
from tritonclient.grpc import service_pb2 as pb

HEADER_LENGTH = b"inference-header-content-length"


class Bare(asyncio.Protocol):
    """One connection of HTTP: any request is an inference, in JSON or with binary tensors both ways."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._header_length: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header: only one is of interest."""
        if name.lower() == HEADER_LENGTH:
            self._header_length = int(value)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer, and be ready for the next request."""
        body, header_length = b"".join(self._body), self._header_length
        self._body, self._header_length = [], None
        if header_length is None:
            (tensor,) = orjson.loads(body)["inputs"]
            data = np.array(tensor["data"], np.float32)
        else:
            (tensor,) = orjson.loads(body[:header_length])["inputs"]
            data = np.frombuffer(body, np.float32, offset=header_length)
        answer = self._model(data.reshape(tensor["shape"]))
        head = b"HTTP/1.1 200 OK\r\n"
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
            head += b"%b: %d\r\n" % (HEADER_LENGTH, len(header))
        self._transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(content), content))


class BareGrpc:
    """The same by gRPC."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

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
    model = OnnxModel()
    bare: Any = BareGrpc(model)
    method = grpc.unary_unary_rpc_method_handler(
        bare.infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{options.grpc_port}")
    await server.start()
    http = await asyncio.get_running_loop().create_server(lambda: Bare(model), "127.0.0.1", options.http_port)
    await http.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
