"""What the gRPC server bears of its clients."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

log = logging.getLogger("tandem.server")

ARGUMENTS = {
    "grpc.max_receive_message_length": ("message_bytes", 1),
    "grpc.max_send_message_length": ("answer_bytes", 1),
    "grpc.max_metadata_size": ("metadata_bytes", 1),
    "grpc.max_concurrent_streams": ("streams", 1),
    "grpc.max_connection_age_ms": ("age_seconds", 1000),
}
"""Channel arguments of gRPC's own servers (grpc/impl/channel_arg_names.h): what they set here, in which fraction."""
NO_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Limits:
    """What the server bears. Sizes are in bytes."""

    message_bytes: int
    """Of a request's message."""
    answer_bytes: int
    calls: int = 1000
    """At once, on all connections."""
    connections: int = 1000
    head_seconds: float = 10.0
    """For a client's first words."""
    idle_seconds: float = 75.0
    """For the rest of a message, for an answer to be taken; and until a silent client is asked whether it lives."""
    age_seconds: float | None = None
    """After which clients are asked to connect anew."""
    metadata_bytes: int = 16_384
    streams: int = NO_LIMIT
    """Calls of one connection at once: those beyond wait in the client."""
    held_bytes: int = 512 << 20
    """Of all requests that are received and not answered; and of all answers that are not taken."""

    def by(self, arguments: Iterable[tuple[str, str | int]]) -> Limits:
        """With what channel arguments say; a line in the log names those that say nothing here."""
        limits = self
        for name, value in arguments:
            if name not in ARGUMENTS or not isinstance(value, int):
                log.warning("the channel argument %s=%s has no effect here", name, value)
                continue
            field, divisor = ARGUMENTS[name]
            limit = value / divisor if divisor > 1 else value
            changed: dict[str, Any] = {field: limit if value >= 0 else NO_LIMIT}
            limits = replace(limits, **changed)
        return limits
