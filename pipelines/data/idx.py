"""Pictures in IDX files: from the cache, a Debian package or the publisher, to arrays."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import tempfile
import urllib.request
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data import IdxPictures, Rows
from pipelines.data.source import DataError, Progress, run
from serving.repository import file_digest

TIMEOUT_SECONDS = 60


def load(source: IdxPictures, cache: Path, input_name: str, progress: Progress) -> tuple[Rows, Rows]:
    """Return training and test pictures, uint8 [N, H, W, C] with labels uint8 [N]. Raises `DataError`."""
    if len(files := list(source.sha256)) != 4:
        raise DataError(f"{source.name}: expected the digests of four files in spec.py, it has {len(files)}")
    fetch(source, cache, progress)
    return _read(cache, input_name, *files[:2]), _read(cache, input_name, *files[2:])


def augment(
    images: NDArray[np.uint8], generator: np.random.Generator, flip: bool = False, shift: int = 0
) -> NDArray[np.uint8]:
    """Mirror half of [B, H, W, C], and move each by up to `shift` pixels each way; what comes in is black."""
    if flip:
        flipped = generator.random(len(images)) < 0.5
        images = np.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    if shift:
        offsets = generator.integers(0, 2 * shift + 1, (len(images), 2))
        padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], axis=(1, 2))
        moved = windows[np.arange(len(images)), *(2 * shift - offsets).T]
        images = np.ascontiguousarray(np.moveaxis(moved, 1, -1))
    return images


def digest(source: IdxPictures) -> str:
    """Return one digest of all four files."""
    return hashlib.sha256("".join(f"{n}:{d};" for n, d in sorted(source.sha256.items())).encode()).hexdigest()


def fetch(source: IdxPictures, cache: Path, progress: Progress) -> None:
    """Make `cache` hold the uncompressed files. Raises `DataError` naming every source that was tried."""
    if all(_digest(cache / name) == expected for name, expected in source.sha256.items()):
        return
    cache.mkdir(parents=True, exist_ok=True)
    attempts = {url: partial(_from_url, source, url, progress) for url in source.urls}
    if source.debian_package:
        attempts = {f"Debian package {source.debian_package}": partial(_from_debian, source), **attempts}
    failures = [f"cache {cache}: not there, or not complete"]
    for name, attempt in attempts.items():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".incoming-") as folder:
            try:
                attempt(Path(folder))
                for file, expected in source.sha256.items():
                    if (found := _digest(Path(folder) / file)) != expected:
                        raise DataError(f"{file} has sha256 {found or '(no file)'}, expected {expected}")
                for file in source.sha256:
                    (Path(folder) / file).replace(cache / file)
            except (DataError, OSError, EOFError, zlib.error, HTTPException) as error:
                failures.append(f"{name}: {error}")
            else:
                return
    raise DataError(
        f"could not get the pictures of {source.name}. Tried\n  "
        + "\n  ".join(failures)
        + f"\nPut {', '.join(source.sha256)} (uncompressed) into {cache} and run this again."
    )


def _digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else ""


def _from_debian(source: IdxPictures, to: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DataError("this machine has no apt-get and dpkg-deb")
    try:
        run(["apt-get", "download", "-q", source.debian_package], to)
    except DataError:
        # The system's package lists may be missing, and updating them may not be allowed.
        (to / "lists" / "partial").mkdir(parents=True)
        own = ["-q", "-o", f"Dir::State::Lists={to}/lists", "-o", f"Dir::Cache={to}"]
        run(["apt-get", "update", *own], to)
        run(["apt-get", "download", *own, source.debian_package], to)
    package = next(to.glob("*.deb"))
    run(["dpkg-deb", "-x", package.name, "unpacked"], to)
    for name in source.sha256:
        packed = next((to / "unpacked").rglob(f"{name}.gz"), None)
        if packed is None:
            raise DataError(f"the package holds no {name}.gz")
        _unpack(packed, to / name)


def _from_url(source: IdxPictures, url: str, progress: Progress, to: Path) -> None:
    for name in source.sha256:
        packed = to / f"{name}.gz"
        address = f"{url}/{packed.name}"
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer, packed.open("wb") as file:  # noqa: S310
            total = int(answer.headers.get("Content-Length") or 0)
            while block := answer.read(1 << 16):
                file.write(block)
                progress(name, file.tell(), total)
        _unpack(packed, to / name)


def _unpack(packed: Path, to: Path) -> None:
    with gzip.open(packed) as stream, to.open("wb") as file:
        shutil.copyfileobj(stream, file)


def _read(folder: Path, input_name: str, images_file: str, labels_file: str) -> Rows:
    images, labels = read_idx(folder / images_file), read_idx(folder / labels_file)
    return Rows({input_name: images if images.ndim == 4 else images[..., np.newaxis]}, labels)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes. Raises `DataError` where its header and its length disagree."""
    content = path.read_bytes()
    dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * dimensions
    if len(content) < header or content[:3] != bytes((0, 0, 8)) or not dimensions:
        raise DataError(f"{path} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != int(np.prod(shape)):
        raise DataError(f"{path}: its header says {shape}, but {len(content) - header} bytes follow")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
