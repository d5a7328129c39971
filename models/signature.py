"""What a model takes and gives, by name: the contract that every artifact, endpoint and client goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    # `tandem status` reads this file, and has no time to import numpy.
    import numpy as np
    from numpy.typing import NDArray

Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Inputs or outputs by name, each with the batch first."""

BATCH = "batch"
DTYPES = ("float32", "int32")
"""What every target takes: TensorFlow.js knows no other numbers."""
CONTENTS = ("numbers", "picture", "text")


@dataclass(frozen=True)
class Tensor:
    """One input or output. A free dimension has a name; the first one is the batch.

    `content` says what a person gives: a `picture` (float32 [batch, H, W, 1 or 3], values 0..1, from a PNG or JPEG),
    a `text` (int32 [batch, length], its UTF-8 bytes, cut or filled with zeros), or `numbers`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    content: str = "numbers"

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(size for size in self.shape[1:] if isinstance(size, int))

    def faults(self) -> list[str]:
        """What is wrong with it, for the one who wrote it."""
        found = []
        if not self.name.isidentifier():
            found.append(f"the name {self.name!r}: expected letters, digits and underscores")
        if self.dtype not in DTYPES:
            found.append(f"{self.name}: expected the dtype {' or '.join(DTYPES)}, it is {self.dtype!r}")
        if self.shape[:1] != (BATCH,) or not all(isinstance(s, int) and s > 0 for s in self.shape[1:]):
            found.append(
                f"{self.name}: expected a shape ('{BATCH}', then sizes of at least 1), it is {self.shape}"
            )
        elif self.content == "picture" and (self.dtype != "float32" or self.row[2:] not in ((1,), (3,))):
            found.append(f"{self.name}: a picture is float32 ['{BATCH}', height, width, 1 or 3]")
        elif self.content == "text" and (self.dtype != "int32" or len(self.row) != 1):
            found.append(f"{self.name}: a text is int32 ['{BATCH}', length]")
        if self.content not in CONTENTS:
            found.append(f"{self.name}: expected the content {', '.join(CONTENTS)}, it is {self.content!r}")
        return found


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, each in the order of its network."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def picture(self) -> Tensor | None:
        """The only input, where that is a picture: then an endpoint also takes a PNG or JPEG."""
        (first, *others) = self.inputs
        return first if first.content == "picture" and not others else None

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it: tensors by name."""
        return {
            kind: {t.name: {"dtype": t.dtype, "shape": list(t.shape), "content": t.content} for t in tensors}
            for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs))
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Signature:
        """Read what `to_json` wrote. Raises `KeyError` or `TypeError` where it is something else."""
        return cls(
            *(
                tuple(
                    Tensor(name, own["dtype"], tuple(own["shape"]), own["content"])
                    for name, own in fields[kind].items()
                )
                for kind in ("inputs", "outputs")
            )
        )


def encode_text(text: str, length: int) -> NDArray[np.int32]:
    """A text as an input has it: int32 [length], its first UTF-8 bytes, then zeros."""
    import numpy as np

    encoded = text.encode()[:length]
    return np.frombuffer(encoded.ljust(length, b"\0"), np.uint8).astype(np.int32)


def decode_text(values: NDArray[Any]) -> str:
    """The text that `encode_text` was given, as far as it fitted."""
    return bytes(values.astype("uint8")).rstrip(b"\0").decode(errors="ignore")


def batch_size(arrays: Arrays) -> int:
    """How many rows there are."""
    return len(next(iter(arrays.values())))


def rows(arrays: Arrays, which: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    """Some of the rows: a slice or an array of indices."""
    return {name: array[which] for name, array in arrays.items()}


def joined(parts: list[Arrays]) -> dict[str, NDArray[Any]]:
    """Batches put together, in order."""
    import numpy as np

    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
