"""The inputs and outputs of a model, by name: the contract of every artifact, endpoint and client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    # `tandem status` imports this file, and numpy takes too long.
    import numpy as np
    from numpy.typing import NDArray

Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Inputs or outputs by name, each with the batch first."""

BATCH = "batch"
DTYPES = ("float32", "int32")
"""The dtypes that every target takes and training uses: TensorFlow.js has no others."""
STRING = "bytes"
IMPORTED = (
    *("float16", "float64", "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int64", *DTYPES),
    STRING,
)
"""Further dtypes of imported models; targets that cannot take them are named."""
CONTENTS = ("numbers", "picture", "text")


@dataclass(frozen=True)
class Tensor:
    """One input or output. A free dimension has a name; the first one is the batch, or the model is not batched.

    `content` is the user's form of it: a `picture` (float32 [batch, H, W, 1 or 3], values 0..1, from a PNG or JPEG),
    a `text` (int32 [batch, length], its UTF-8 bytes, cut or filled with zeros), or `numbers`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    content: str = "numbers"

    @property
    def batched(self) -> bool:
        """Return True if the first dimension is the batch."""
        return self.shape[:1] == (BATCH,)

    @property
    def inner(self) -> tuple[int | str, ...]:
        """The shape without the batch."""
        return self.shape[1:] if self.batched else self.shape

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one row; -1 where a size is free."""
        return tuple(size if isinstance(size, int) else -1 for size in self.inner)

    @property
    def free(self) -> bool:
        """Return True if a row has a size that is free."""
        return -1 in self.row

    def admits(self, row: tuple[int, ...]) -> bool:
        """Return True if a row of this shape fits."""
        sizes = self.row
        return len(row) == len(sizes) and all(own in (-1, got) for own, got in zip(sizes, row, strict=True))

    def faults(self, dtypes: tuple[str, ...] = DTYPES) -> list[str]:
        """Return the faults of this tensor, as messages for the author of the spec."""
        found = []
        if not self.name.isidentifier():
            found.append(f"the name {self.name!r}: expected letters, digits and underscores")
        if self.dtype not in dtypes:
            found.append(f"{self.name}: expected the dtype {' or '.join(dtypes)}, it is {self.dtype!r}")
        if BATCH in self.inner or not all(
            size > 0 if isinstance(size, int) else size.isidentifier() for size in self.inner
        ):
            found.append(
                f"{self.name}: expected a shape of '{BATCH}', where rows are batched, then sizes of at least 1 or "
                f"names of free ones, it is {self.shape}"
            )
        elif self.content == "picture" and (
            self.dtype != "float32" or len(self.row) != 3 or self.free or self.row[2] not in (1, 3)
        ):
            found.append(f"{self.name}: a picture is float32 ['{BATCH}', height, width, 1 or 3]")
        elif self.content == "text" and (self.dtype != "int32" or len(self.row) != 1 or self.free):
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
        return first if first.content == "picture" and first.batched and not others else None

    @property
    def batched(self) -> bool:
        """Return True if a call has any number of rows; otherwise it is one, without a dimension for it."""
        return all(tensor.batched for tensor in (*self.inputs, *self.outputs))

    def faults(self, batched: bool = True, dtypes: tuple[str, ...] = DTYPES) -> list[str]:
        """Return the faults of the signature, as messages for the author of the spec, which says `batched`."""
        tensors = (*self.inputs, *self.outputs)
        faults = [fault for tensor in tensors for fault in tensor.faults(dtypes)]
        if len({tensor.name for tensor in tensors}) < len(tensors) or not self.inputs:
            faults.append("expected at least one input, and no name twice among inputs and outputs")
        expected = f"a shape without '{BATCH}', as the model is not batched"
        if batched:
            expected = f"a shape ('{BATCH}', then sizes; batched=False in spec.py takes one row a call)"
        wrong = [tensor for tensor in tensors if tensor.batched != batched]
        return faults + [f"{tensor.name}: expected {expected}, it is {tensor.shape}" for tensor in wrong]

    def calls(self, arrays: Arrays, size: int) -> list[dict[str, NDArray[Any]]]:
        """Split rows into calls: up to `size` in each, or one if the model is not batched."""
        import numpy as np

        count = batch_size(arrays)
        if self.batched:
            return [rows(arrays, slice(start, start + size)) for start in range(0, count, size)]
        # A row of scalars is no array by itself.
        return [{name: np.asarray(a[row], a.dtype) for name, a in arrays.items()} for row in range(count)]

    def gathered(self, answers: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
        """Join the answers to `calls`, row by row; flat if rows of a model that is not batched differ in shape."""
        import numpy as np

        if self.batched:
            return joined(list(answers))
        result = {}
        for name in answers[0]:
            arrays = [np.asarray(answer[name]) for answer in answers]
            alike = len({array.shape for array in arrays}) == 1
            result[name] = np.stack(arrays) if alike else np.concatenate([array.ravel() for array in arrays])
        return result

    def to_json(self) -> dict[str, Any]:
        """Return the form of the manifest: tensors by name."""
        return {
            kind: {t.name: {"dtype": t.dtype, "shape": list(t.shape), "content": t.content} for t in tensors}
            for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs))
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Signature:
        """Read the form of `to_json`. Raises `KeyError` or `TypeError` for any other."""
        inputs, outputs = (
            tuple(
                Tensor(name, t["dtype"], tuple(t["shape"]), t["content"]) for name, t in fields[kind].items()
            )
            for kind in ("inputs", "outputs")
        )
        return cls(inputs, outputs)


def encode_text(text: str, length: int) -> NDArray[np.int32]:
    """Return a text as int32 [length]: its first UTF-8 bytes, then zeros."""
    import numpy as np

    encoded = text.encode()[:length]
    return np.frombuffer(encoded.ljust(length, b"\0"), np.uint8).astype(np.int32)


def decode_text(values: NDArray[Any]) -> str:
    """Return the text of `encode_text`, as far as it fitted."""
    return bytes(values.astype("uint8")).rstrip(b"\0").decode(errors="ignore")


def batch_size(arrays: Arrays) -> int:
    """Return the number of rows."""
    return len(next(iter(arrays.values())))


def rows(arrays: Arrays, which: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    """Return some of the rows, by a slice or an array of indices."""
    return {name: array[which] for name, array in arrays.items()}


def joined(parts: list[Arrays]) -> dict[str, NDArray[Any]]:
    """Join batches, in order."""
    import numpy as np

    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
