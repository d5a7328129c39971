"""gRPC by grpc.aio: handlers that map errors to status codes, health, reflection, and the stop."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.server.errors import InvalidRequestError, ServerError, told
from serving.server.metrics import Observe, RequestRecord

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, RequestRecord], Awaitable[Any]]
"""Return the response to a request, as a message or as JSON of one. Raises `ServerError`."""
Answer = Callable[[bytes, Context], Awaitable[bytes]]

CLOCKS_APART = 0.1
"""Seconds by which a client's deadline may precede the server's; it then cancels the call."""

OPTIONS: dict[str, str | int] = {
    # A second server on this port must fail, not share its requests.
    "grpc.so_reuseport": 0,
    # Detects vanished clients, and refuses those that ping too often.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    "grpc.max_metadata_size": 16 * 1024,
}


@dataclass(frozen=True)
class Service:
    """A service and its served methods, by name.

    A streaming method is called for each request of its stream; an error ends the stream.
    """

    descriptor: ServiceDescriptor
    methods: Mapping[str, Method]


class RpcServer:
    """A gRPC server of services, with health checking and reflection."""

    def __init__(
        self,
        services: Sequence[Service],
        observe: Observe,
        options: argparse.Namespace,
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
    ) -> None:
        self._calls = 0
        """Requests without a sent response."""
        self._observe = observe
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs
        self._names = [service.descriptor.full_name for service in services]
        limit = {"grpc.max_receive_message_length": options.max_body_bytes}
        channel = OPTIONS | limit | dict(options.grpc_options)
        self._server = grpc.aio.server(
            interceptors=interceptors,
            maximum_concurrent_rpcs=options.max_connections,
            options=list(channel.items()),
        )
        self._server.add_generic_rpc_handlers([self._handlers(service) for service in services])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(reflected, self._server)

    def listen(self, address: str) -> int:
        """Listen on "host:port" or "unix:path"; returns the port. Raises `RuntimeError`."""
        return self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Start serving; the health service says NOT_SERVING until `set_serving`."""
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """Set the health status of the server and of each service."""
        status = health_pb2.HealthCheckResponse
        for name in ("", *self._names):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Accept no more calls, and finish the current ones within `grace_seconds`."""
        stopping = asyncio.create_task(self._server.stop(grace_seconds))
        while self._calls and not stopping.done():
            await asyncio.sleep(0.02)
        # Idle streams, such as Watch of the health service, would last for the whole grace.
        await self._server.stop(None)
        await stopping

    def _handlers(self, service: Service) -> grpc.GenericRpcHandler[Any, Any]:
        handlers = {}
        for name, function in service.methods.items():
            method = service.descriptor.methods_by_name[name]
            answer = partial(self._answer, f"/{service.descriptor.full_name}/{name}", function, method)
            if method.client_streaming:
                handlers[name] = grpc.stream_stream_rpc_method_handler(self._stream(answer))
            else:
                handlers[name] = grpc.unary_unary_rpc_method_handler(self._unary(answer))
        return grpc.method_handlers_generic_handler(service.descriptor.full_name, handlers)

    def _unary(self, answer: Answer) -> Any:  # noqa: ANN401 - a behaviour as grpcio's stubs do not know it
        async def behave(request: bytes, context: Context) -> bytes:
            self._calls += 1
            context.add_done_callback(self._sent)  # type: ignore[arg-type] # the stubs know no argument
            return await answer(request, context)

        return behave

    def _stream(self, answer: Answer) -> Any:  # noqa: ANN401 - a behaviour as grpcio's stubs do not know it
        async def behave(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            async for request in requests:
                self._calls += 1
                try:
                    yield await answer(request, context)
                finally:
                    self._calls -= 1

        return behave

    def _sent(self, _context: Context) -> None:
        self._calls -= 1

    async def _answer(
        self, path: str, function: Method, method: MethodDescriptor, request: bytes, context: Context
    ) -> bytes:
        """Return the response, or end the call with a status code.

        Messages are parsed here, so that each request has a record.
        """
        record = RequestRecord("gRPC", path, context.peer().removeprefix("ipv4:"))
        record.request_bytes = len(request)
        try:
            answer = await function(GetMessageClass(method.input_type).FromString(request), record)
            if isinstance(answer, dict):
                answer = ParseDict(answer, GetMessageClass(method.output_type)())
            response: bytes = answer.SerializeToString()
            record.response_bytes = len(response)
            return response
        except asyncio.CancelledError:
            left = context.time_remaining()
            record.code = "CANCELLED" if left is None or left > CLOCKS_APART else "DEADLINE_EXCEEDED"
            raise
        except DecodeError:
            failure: ServerError = InvalidRequestError(f"expected a request of {path}, got other bytes")
            record.code = failure.code.name
        except Exception as error:  # noqa: BLE001 - any error becomes a status
            failure = told(error, path)
            record.code = failure.code.name
        finally:
            self._observe(record)
        await context.abort(failure.code, str(failure))
        raise failure  # For mypy, which does not know that abort() raises.
