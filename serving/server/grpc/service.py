"""A service as the server sees it: its methods, by the descriptors of its .proto file and what answers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass


@dataclass(frozen=True, slots=True)
class Method:
    """What answers at one path."""

    answer: Callable[[Any], Any]
    """Takes the request, or an iterator of them; gives an awaitable of the response, or an iterator of them."""
    parse: Callable[[bytes], Any]
    """A request's message. Raises `DecodeError`."""
    request_streaming: bool
    response_streaming: bool


@dataclass(frozen=True)
class Service:
    """A service and its servicer, an object with a method for each of those that it implements."""

    descriptor: ServiceDescriptor
    servicer: object

    @property
    def name(self) -> str:
        """Its full name."""
        return self.descriptor.full_name

    def methods(self) -> dict[str, Method]:
        """What is implemented, by its path, /package.Service/Method."""
        return {
            f"/{self.name}/{method.name}": Method(
                getattr(self.servicer, method.name),
                GetMessageClass(method.input_type).FromString,
                method.client_streaming,
                method.server_streaming,
            )
            for method in self.descriptor.methods
            if hasattr(self.servicer, method.name)
        }
