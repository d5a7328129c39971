"""W3C trace context: which trace of its caller a request belongs to. https://www.w3.org/TR/trace-context/"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
STATE = re.compile(r"[\x20-\x7e]{0,512}")
"""What is passed on of a tracestate: the rest of the grammar is between the tracers."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace, and the span in it that is the parent of what happens here; both in lower-case hex."""

    trace_id: str
    span_id: str
    flags: int = 1
    state: str = ""

    def headers(self) -> list[tuple[str, str]]:
        """As headers of HTTP or metadata of gRPC."""
        made = [("traceparent", f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}")]
        if self.state:
            made.append(("tracestate", self.state))
        return made


def parse(parent: str | None, state: str = "") -> TraceContext | None:
    """From `traceparent` and `tracestate`; None where the first is not valid: the trace is then not continued."""
    if parent is None:
        return None
    match = HEADER.fullmatch(parent.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    # Later versions may add fields; ff is none, and ids of zeros say that there is no trace.
    if version == "ff" or (version == "00" and rest) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & 1, state if STATE.fullmatch(state) else "")


def new() -> TraceContext:
    """A trace of our own."""
    return TraceContext(secrets.token_hex(16), secrets.token_hex(8))
