"""Large arrays of numbers in JSON, cut out of their document and read without an object of Python for each number.

simdjson reads them several times as fast as orjson, which reads the rest; what is odd is left to orjson as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import orjson
from simdjson import Array as Parsed
from simdjson import Parser

from serving.server.errors import InvalidRequestError
from serving.server.signature import Array

MAX_DIMENSIONS = 32
PLACE = "\0"
"""Begins the string that stands for an array that was cut out: no other string there can hold this character."""
NO_BRACKETS = b"0123456789+-.eE \t\r\n"
LARGEST_REMEMBERED = 4096
"""Bytes."""
FORMS = {"i": ("i", np.int64), "u": ("u", np.uint64)}
FLOATS = ("d", np.float64)


class JsonArray:
    """An array of JSON without strings and objects, well formed.

    Raises `ValueError` or `RuntimeError`, as simdjson does, where it is not, and for integers beyond 64 bits.
    """

    __slots__ = ("_parsed", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        # A parser is cheap, and may not be used again while what it has parsed is alive.
        self._parsed: Parsed = Parser().parse(text)  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._parsed)

    def __repr__(self) -> str:
        return self._text[:100].decode()

    def numbers(self, wanted: np.dtype[np.generic]) -> Array | None:
        """Its numbers as int64, uint64 or float64, whichever holds `wanted`; None where it holds anything else.

        None too where it is ragged, or holds what does not fit.
        """
        if wanted.kind == "b":
            return None
        form, dtype = FORMS.get(wanted.kind, FLOATS)
        try:
            found = np.frombuffer(self._parsed.as_buffer(of_type=form), dtype)  # type: ignore[arg-type]
        except (ValueError, TypeError, RuntimeError):
            return None
        shape = self._shape(found.size)
        return None if shape is None else found.reshape(shape)

    def lists(self) -> list[object]:
        """The array as orjson reads it. Raises `InvalidRequestError` where it is nested too deep for that."""
        try:
            found: list[object] = orjson.loads(self._text)
        except orjson.JSONDecodeError as error:
            raise InvalidRequestError(f"expected JSON, got an array that is none: {error}") from None
        return found

    def _shape(self, count: int) -> tuple[int, ...] | None:
        """The sizes of an array of `count` numbers, None where it is ragged."""
        if self._text.find(b"[", 1) < 0:
            return (count,)
        brackets = self._text.translate(None, NO_BRACKETS)
        sizes = _remembered(brackets) if len(brackets) <= LARGEST_REMEMBERED else _sizes(brackets)
        # A number leaves nothing between brackets, so that [1] and [] look the same: only their count tells.
        return sizes if sizes is not None and math.prod(sizes) == count else None


def _sizes(brackets: bytes) -> tuple[int, ...] | None:
    """The sizes of nested arrays by their brackets and commas, None where they are ragged."""
    depth = len(brackets) - len(brackets.lstrip(b"["))
    if depth > MAX_DIMENSIONS:
        return None
    sizes: list[int] = []
    even = b""  # The first array of a level, if all in it are like their first.
    for level in range(1, depth + 1):
        length = brackets.find(b"]" * level) + 2 * level - depth
        size, rest = divmod(length - 1, len(even) + 1)
        if size < 1 or rest:
            return None
        even = b"[" + (even + b",") * (size - 1) + even + b"]"
        sizes.insert(0, size)
    return tuple(sizes) if even == brackets else None


_remembered = lru_cache(64)(_sizes)


def cut(text: bytes, key: re.Pattern[bytes], least: int) -> tuple[bytes, list[JsonArray]]:
    """A JSON document with strings for its arrays of numbers, which `place` knows, and these arrays.

    `key` matches what precedes an array. From the first that has less than `least` bytes on, and where anything is
    unusual, all stays as it is: the text may be no JSON.
    """
    pieces: list[bytes] = []
    arrays: list[JsonArray] = []
    position = 0
    found = key.search(text)
    while found is not None:
        start = found.end()
        # No array of numbers holds a quote or a brace.
        end = text.find(b"}", start)
        quote = text.find(b'"', start, end)
        end = text.rfind(b"]", start, end if quote < 0 else quote) + 1
        if end > start:
            if end - start < least:
                break
            pieces += text[position:start], b'"\\u0000%d"' % len(arrays)
            try:
                arrays.append(JsonArray(text[start:end]))
            except (ValueError, TypeError, RuntimeError):
                return text, []
            position = start = end
        found = key.search(text, start)
    if not arrays:
        return text, []
    rest = b"".join((*pieces, text[position:]))
    # Without escapes, what looks like a key is one, and nobody else writes `PLACE`.
    return (text, []) if rest.count(b"\\") > len(arrays) else (rest, arrays)


def place(value: object, arrays: Sequence[JsonArray]) -> JsonArray | None:
    """The array that a value of a document stands for."""
    return arrays[int(value[1:])] if isinstance(value, str) and value.startswith(PLACE) else None
