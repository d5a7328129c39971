"""Labelled rows, and the data sources of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from models.signature import Arrays, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """`inputs` by name and `targets` (classes int64 [N], or float32 [N, outputs]), each with N rows. A picture may
    be kept as uint8 [N, H, W, C]: endpoints take it as float32, divided by 255."""

    inputs: Arrays
    targets: NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, which: Any) -> Rows:  # noqa: ANN401
        """Return some of the rows, by a slice or an array of indices."""
        return Rows({name: array[which] for name, array in self.inputs.items()}, self.targets[which])

    def served(self, signature: Signature) -> dict[str, NDArray[Any]]:
        """Return the inputs as the endpoints take them, in the signature's order."""
        import numpy as np

        result = {}
        for tensor in signature.inputs:
            array = self.inputs[tensor.name]
            scaled = array.dtype == np.uint8 and tensor.content == "picture"
            result[tensor.name] = array.astype(tensor.dtype) / np.float32(255) if scaled else array
        return result


@dataclass(frozen=True)
class Dataset:
    """The training rows, split in two by seed, the test rows, and the digest of all of them."""

    train: Rows
    validation: Rows
    test: Rows
    digest: str

    @property
    def splits(self) -> dict[str, Rows]:
        """The rows of every split by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class IdxPictures:
    """Labelled pictures, grey [N, H, W] or in colour [N, H, W, 3], in the four IDX files of MNIST's format
    (http://yann.lecun.com/exdb/mnist/): images and labels of `train` and of `t10k`, in this order.

    `sha256` maps each file's name, without .gz, to the digest of its *uncompressed* bytes: sources compress
    differently. `debian_package` and `urls` say where the files may come from; each url is a folder that
    holds `<file>.gz`. A profile's `augmentation` may have `flip=True` and `shift=<pixels>`.
    """

    name: str
    sha256: dict[str, str]
    debian_package: str = ""
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class NpzFolder:
    """`train.npz` and `test.npz` in `folder` (default: `data/<name>` of the artifacts): an array for each input by
    its name, and `target`."""

    name: str
    folder: str = ""


@dataclass(frozen=True)
class OwnData:
    """`data.py` in the model's folder: `load(cache: Path) -> tuple[Rows, Rows]` returns training and test rows, always
    the same; `augment(inputs, generator, **augmentation) -> inputs`, if it exists, changes a batch's inputs."""

    name: str


@dataclass(frozen=True)
class Samples:
    """Inputs without targets, on which an imported artifact's conversions are compared with it: `samples.npz` in the
    model's folder, with an array of rows for each input, or inputs drawn from the signature."""

    name: str


DataSource: TypeAlias = IdxPictures | NpzFolder | OwnData | Samples
