"""From somewhere to checked pictures in memory: cache, then Debian package, then the publisher."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from models.base import PictureSet

VALIDATION_SHARE = 12
"""One of so many training pictures is held out, to watch the training (5,000 of 60,000); the test pictures are for
gates and reports only."""

TIMEOUT_SECONDS = 60


Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have come, and the bytes that will come (0: unknown)."""


class DataError(Exception):
    """The pictures could not be had, or are not what their digests say."""


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 [N, H, W] and `labels` uint8 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def floats(self) -> NDArray[np.float32]:
        """The pictures as the endpoints take them: float32 [N, H, W, 1], values 0..1."""
        return to_floats(self.images)


@dataclass(frozen=True)
class Dataset:
    """The training pictures, split in two by seed, the test pictures, and the digest of all of them."""

    train: Pictures
    validation: Pictures
    test: Pictures
    digest: str


def to_floats(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [N, H, W] -> float32 [N, H, W, 1], values 0..1."""
    return images[..., np.newaxis].astype(np.float32) / np.float32(255)


def load(source: PictureSet, cache: Path, seed: int, progress: Progress | None = None) -> Dataset:
    """Load the pictures, fetching them into `cache` on the first call. Raises `DataError`."""
    fetch(source, cache, progress or (lambda _name, _done, _total: None))
    everything = _read(cache, "train")
    order = np.random.default_rng(seed).permutation(len(everything))
    count = len(everything) // VALIDATION_SHARE
    held_out, rest = np.sort(order[:count]), np.sort(order[count:])
    return Dataset(
        train=Pictures(everything.images[rest], everything.labels[rest]),
        validation=Pictures(everything.images[held_out], everything.labels[held_out]),
        test=_read(cache, "t10k"),
        digest=digest(source),
    )


def digest(source: PictureSet) -> str:
    """One digest for all four files."""
    return hashlib.sha256("".join(f"{n}:{d};" for n, d in sorted(source.sha256.items())).encode()).hexdigest()


def fetch(source: PictureSet, cache: Path, progress: Progress) -> None:
    """Make `cache` hold the uncompressed files. Raises `DataError` naming every source that was tried."""
    if all(_digest(cache / name) == expected for name, expected in source.sha256.items()):
        return
    cache.mkdir(parents=True, exist_ok=True)
    attempts: list[tuple[str, Callable[[Path], None]]] = []
    if source.debian_package:
        attempts.append((f"Debian package {source.debian_package}", partial(_from_debian, source)))
    attempts += [(url, partial(_from_url, source, url, progress)) for url in source.urls]
    failures = [f"cache {cache}: not there, or not complete"]
    for name, attempt in attempts:
        with tempfile.TemporaryDirectory(dir=cache, prefix=".incoming-") as folder:
            try:
                attempt(Path(folder))
                _accept(source, Path(folder), cache)
            except (DataError, urllib.error.URLError, OSError, EOFError) as error:
                failures.append(f"{name}: {error}")
            else:
                return
    raise DataError(
        f"could not get the pictures of {source.name}. Tried\n  "
        + "\n  ".join(failures)
        + f"\nPut {', '.join(source.sha256)} (uncompressed) into {cache} and run this again."
    )


def _accept(source: PictureSet, folder: Path, cache: Path) -> None:
    for name, expected in source.sha256.items():
        found = _digest(folder / name)
        if found != expected:
            raise DataError(f"{name} has sha256 {found or '(no file)'}, expected {expected}")
    for name in source.sha256:
        (folder / name).replace(cache / name)


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_debian(source: PictureSet, to: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DataError("this machine has no apt-get and dpkg-deb")
    try:
        _run(["apt-get", "download", "-q", source.debian_package], to)
    except DataError:
        # The system's lists may not be there, and not be ours to fetch.
        (to / "lists" / "partial").mkdir(parents=True)
        own = ["-q", "-o", f"Dir::State::Lists={to}/lists", "-o", f"Dir::Cache={to}"]
        _run(["apt-get", "update", *own], to)
        _run(["apt-get", "download", *own, source.debian_package], to)
    package = next(to.glob("*.deb"))
    _run(["dpkg-deb", "-x", package.name, "unpacked"], to)
    for name in source.sha256:
        packed = next((to / "unpacked").rglob(f"{name}.gz"), None)
        if packed is None:
            raise DataError(f"the package holds no {name}.gz")
        with gzip.open(packed) as stream, (to / name).open("wb") as file:
            shutil.copyfileobj(stream, file)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"`{' '.join(command)}` did not finish in 300 s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise DataError(f"`{' '.join(command)}` failed: {reason[-1] if reason else done.returncode}")


def _from_url(source: PictureSet, url: str, progress: Progress, to: Path) -> None:
    for name in source.sha256:
        packed = to / f"{name}.gz"
        with urllib.request.urlopen(f"{url}/{packed.name}", timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            _copy(answer, packed, name, int(answer.headers.get("Content-Length") or 0), progress)
        with gzip.open(packed) as stream, (to / name).open("wb") as file:
            shutil.copyfileobj(stream, file)


def _copy(stream: BinaryIO, path: Path, name: str, total: int, progress: Progress) -> None:
    done = 0
    with path.open("wb") as file:
        while block := stream.read(1 << 16):
            file.write(block)
            done += len(block)
            progress(name, done, total)


def _read(folder: Path, part: str) -> Pictures:
    images = read_idx(folder / f"{part}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{part}: {len(images)} pictures but {len(labels)} labels")
    return Pictures(images, labels)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes. Raises `DataError` where its header and its length disagree."""
    content = path.read_bytes()
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != int(np.prod(shape)):
        raise DataError(f"{path}: its header says {shape}, but {len(content) - header} bytes follow")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
