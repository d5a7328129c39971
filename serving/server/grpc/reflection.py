"""grpc.reflection: the services and their messages, for clients without a .proto file, such as grpcurl.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from serving.server import protos
from serving.server.errors import NotFoundError
from serving.server.grpc.service import Service

PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
"""They differ in nothing but their names."""

Message: TypeAlias = Any


def services(described: Iterable[ServiceDescriptor]) -> list[Service]:
    """The services that tell of those `described`, whose files import no others, and of themselves."""
    loaded = [protos.load(Path(__file__).with_name("reflection.proto"), package) for package in PACKAGES]
    own = [pb.DESCRIPTOR.services_by_name["ServerReflection"] for pb in loaded]
    known = [*described, *own]
    return [Service(each, Reflection(pb, known)) for each, pb in zip(own, loaded, strict=True)]


class Reflection:
    """The service, by one of `PACKAGES`."""

    def __init__(self, pb: Message, known: Iterable[ServiceDescriptor]) -> None:
        self._pb = pb
        self._known = {service.full_name: service for service in known}
        self._files: dict[str, FileDescriptor] = {each.file.name: each.file for each in self._known.values()}

    async def ServerReflectionInfo(  # noqa: N802
        self, requests: AsyncIterator[Message]
    ) -> AsyncIterator[Message]:
        """An answer for each question; an error does not end the stream."""
        async for request in requests:
            answer = self._pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
            try:
                self._answer(request, answer)
            except NotFoundError as error:
                answer.error_response.error_code = error.code
                answer.error_response.error_message = str(error)
            yield answer

    def _answer(self, request: Message, answer: Message) -> None:
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in sorted(self._known):
                answer.list_services_response.service.add(name=name)
        elif kind == "file_by_filename" and request.file_by_filename in self._files:
            found = self._files[request.file_by_filename]
            answer.file_descriptor_response.file_descriptor_proto.append(found.serialized_pb)
        elif kind == "file_containing_symbol":
            found = self._file_of(request.file_containing_symbol)
            answer.file_descriptor_response.file_descriptor_proto.append(found.serialized_pb)
        else:
            raise NotFoundError(f"nothing is known of {str(request)[:200]!r}; proto3 has no extensions")

    def _file_of(self, symbol: str) -> FileDescriptor:
        service, _, method = symbol.rpartition(".")
        if service in self._known and method in self._known[service].methods_by_name:
            return self._known[service].file
        for file in self._files.values():
            with suppress(KeyError):
                return file.pool.FindFileContainingSymbol(symbol)
        raise NotFoundError(f"no service, method or message is called {symbol[:200]!r}")
