"""gRPC by grpc.aio: a servicer's methods as handlers that map errors to status codes, health, and the stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.server.errors import ServerError
from serving.server.records import Observe, RequestRecord

log = logging.getLogger("tandem.server")

OPTIONS: tuple[tuple[str, str | int], ...] = (
    # A second server on this port must fail, not share its requests.
    ("grpc.so_reuseport", 0),
    # Clients that are gone without a word are found out, and those that ping too often are told to go.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_metadata_size", 16 * 1024),
)


@dataclass(frozen=True)
class Service:
    """A service and what implements it: an object with a coroutine for each method that is served.

    A method takes a request and the request's record, and returns the response or raises a `ServerError`. One that
    streams is called for each request of its stream, and raises nothing: an error is a response there.
    """

    descriptor: ServiceDescriptor
    servicer: object


class RpcServer:
    """A gRPC server for some services, health checking, and reflection of both."""

    def __init__(
        self,
        services: Sequence[Service],
        observe: Observe,
        *,
        max_message_bytes: int,
        max_calls: int,
        options: Iterable[tuple[str, str | int]] = (),
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
    ) -> None:
        self._calls = 0
        """Requests being answered."""
        self._observe = observe
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs
        self._names = [service.descriptor.full_name for service in services]
        self._server = grpc.aio.server(
            interceptors=interceptors,
            maximum_concurrent_rpcs=max_calls,
            options=(
                *OPTIONS,
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                *options,
            ),
        )
        self._server.add_generic_rpc_handlers([self._handlers(service) for service in services])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(reflected, self._server)

    def listen(self, address: str, tls: grpc.ServerCredentials | None = None) -> int:
        """Listen on "host:port" or "unix:path"; returns the port. Raises `RuntimeError` where it cannot be had."""
        if tls is not None:
            return self._server.add_secure_port(address, tls)
        return self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Answer calls; the health service says NOT_SERVING until `set_serving`."""
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """Set what the health service says of the server and of each service."""
        status = health_pb2.HealthCheckResponse
        for name in ("", *self._names):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Begin no more calls, answer those that have begun, and end what takes longer than `grace_seconds`."""
        stopping = asyncio.create_task(self._server.stop(grace_seconds))
        while self._calls and not stopping.done():
            await asyncio.sleep(0.02)
        # Idle streams, such as watches of the health, would last for the whole grace.
        await self._server.stop(None)
        await stopping

    def _handlers(self, service: Service) -> grpc.GenericRpcHandler[Any, Any]:
        handlers = {}
        for method in service.descriptor.methods:
            function = getattr(service.servicer, method.name, None)
            if function is None:
                continue
            path = f"/{service.descriptor.full_name}/{method.name}"
            if method.client_streaming:
                make, behaviour = grpc.stream_stream_rpc_method_handler, self._stream(function, path)
            else:
                make, behaviour = grpc.unary_unary_rpc_method_handler, self._unary(function, path)
            handlers[method.name] = make(
                behaviour,
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
        return grpc.method_handlers_generic_handler(service.descriptor.full_name, handlers)

    def _unary(self, function: Callable[[Any, RequestRecord], Awaitable[Any]], path: str) -> Any:  # noqa: ANN401
        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401 - any message
            record = RequestRecord("gRPC", path, context.peer())
            self._calls += 1
            try:
                return await function(request, record)
            except ServerError as error:
                await _abort(context, record, error)
            except asyncio.CancelledError:
                left = context.time_remaining()
                record.code = "CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"
                raise
            except Exception:
                log.exception("%s failed", path)
                failure = ServerError("the server failed on this request; its log says why")
                await _abort(context, record, failure)
            finally:
                self._calls -= 1
                self._observe(record)

        return answer

    def _stream(self, function: Callable[[Any, RequestRecord], Awaitable[Any]], path: str) -> Any:  # noqa: ANN401
        async def answer(
            requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            async for request in requests:
                yield await self._one_of_stream(
                    function, request, RequestRecord("gRPC", path, context.peer())
                )

        return answer

    async def _one_of_stream(
        self,
        function: Callable[[Any, RequestRecord], Awaitable[Any]],
        request: Any,  # noqa: ANN401 - any message
        record: RequestRecord,
    ) -> Any:  # noqa: ANN401 - any message
        self._calls += 1
        try:
            return await function(request, record)
        finally:
            self._calls -= 1
            self._observe(record)


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], record: RequestRecord, error: ServerError
) -> None:
    record.code = error.code.name
    if error.status == 500:
        log.error("%s: %s", record.path, error)
    await context.abort(error.code, str(error))
