from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from models.base import Model, load
from models.data import DataSource, IdxPictures, NpzFolder
from pipelines import data
from pipelines.data import DataError
from pipelines.data import idx as idx_files
from tests.pictures import labelled
from tests.pipelines.project import idx

TRAIN, TEST = 6_000, 100


@pytest.fixture
def files() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    result = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        result[f"{part}-images-idx3-ubyte"] = idx(generator.integers(0, 256, (count, 4, 4), np.uint8))
        result[f"{part}-labels-idx1-ubyte"] = idx(generator.integers(0, 10, count, np.uint8))
    return result


@pytest.fixture
def publisher(tmp_path: Path, files: dict[str, bytes]) -> Iterator[str]:
    folder = tmp_path / "publisher"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def source(files: dict[str, bytes], url: str) -> Model:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return of(IdxPictures("cache", digests, urls=(url,)))


def of(source: DataSource) -> Model:
    fashion = load("fashion")
    return replace(fashion, spec=replace(fashion.spec, data=source))


def test_comes_from_the_publisher_then_from_the_cache(
    tmp_path: Path, files: dict[str, bytes], publisher: str
) -> None:
    seen: list[tuple[str, int, int]] = []
    pictures = source(files, publisher)
    first = data.load(pictures, tmp_path, 1, lambda *call: seen.append(call))
    assert {name for name, done, total in seen if done == total > 0} == set(files)
    seen.clear()
    again = data.load(pictures, tmp_path, 1, lambda *call: seen.append(call))
    assert not seen
    np.testing.assert_array_equal(first.train.inputs["image"], again.train.inputs["image"])
    assert len(first.train) + len(first.validation) == TRAIN
    assert len(first.test) == TEST


def test_split_follows_the_seed_and_keeps_every_picture(
    tmp_path: Path, files: dict[str, bytes], publisher: str
) -> None:
    pictures = source(files, publisher)
    one, other = (data.load(pictures, tmp_path, seed) for seed in (1, 2))
    assert not np.array_equal(one.validation.inputs["image"], other.validation.inputs["image"])
    both = np.concatenate([one.train.inputs["image"], one.validation.inputs["image"]])
    everything = idx_files.read_idx(tmp_path / "data" / "cache" / "train-images-idx3-ubyte")
    assert sorted(i.tobytes() for i in both) == sorted(i.tobytes() for i in everything)


def test_damaged_cache_is_fetched_again(tmp_path: Path, files: dict[str, bytes], publisher: str) -> None:
    pictures = source(files, publisher)
    data.load(pictures, tmp_path, 1)
    path = tmp_path / "data" / "cache" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-10])
    data.load(pictures, tmp_path, 1)
    assert path.read_bytes() == files[path.name]


def test_a_changed_download_is_refused_and_not_kept(
    tmp_path: Path, files: dict[str, bytes], publisher: str
) -> None:
    name = "t10k-images-idx3-ubyte"
    (tmp_path / "publisher" / f"{name}.gz").write_bytes(gzip.compress(files[name][:-1] + b"?"))
    with pytest.raises(DataError, match=f"{name} has sha256"):
        data.load(source(files, publisher), tmp_path, 1)
    assert not list((tmp_path / "data" / "cache").iterdir())


def test_a_cut_off_or_damaged_download_is_refused(
    tmp_path: Path, files: dict[str, bytes], publisher: str
) -> None:
    packed = tmp_path / "publisher" / "t10k-images-idx3-ubyte.gz"
    for content in (
        packed.read_bytes()[:-20],
        packed.read_bytes()[:40] + b"other" + packed.read_bytes()[45:],
    ):
        packed.write_bytes(content)
        with pytest.raises(DataError, match="could not get the pictures"):
            data.load(source(files, publisher), tmp_path, 1)


@pytest.mark.slow
def test_failure_names_every_source_and_the_way_out(tmp_path: Path, files: dict[str, bytes]) -> None:
    pictures = IdxPictures(
        "cache",
        {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        debian_package="no-such-package-of-pictures",
        urls=("http://127.0.0.1:9",),
    )
    with pytest.raises(DataError) as failure:
        data.load(of(pictures), tmp_path, 1)
    message = str(failure.value)
    assert "cache" in message
    assert "no-such-package-of-pictures" in message
    assert "http://127.0.0.1:9" in message
    assert "Put train-images-idx3-ubyte" in message


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", bytes((0, 0, 8, 1, 0, 0, 0, 5)) + b"1234", bytes((0, 0, 9, 1, 0, 0, 0, 4)) + b"1234"],
    ids=["empty", "cut header", "cut data", "other type"],
)
def test_read_idx_refuses_what_is_no_idx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match="labels"):
        idx_files.read_idx(path)


def test_pictures_are_served_as_floats_and_other_arrays_as_they_are() -> None:
    signature = load("fashion").spec.signature
    pictures = labelled(np.array([[[0, 255], [51, 102]]], np.uint8), np.array([1]))
    floats = pictures.served(signature)["image"]
    assert floats.dtype == np.float32
    assert floats.shape == (1, 2, 2, 1)
    np.testing.assert_allclose(floats.ravel(), [0, 1, 0.2, 0.4], rtol=1e-6)


def test_colours_are_flipped_and_shifted_as_one() -> None:
    dot = np.zeros((256, 9, 9, 3), np.uint8)
    dot[:, 4, 3] = (1, 2, 3)
    moved = idx_files.augment(dot, np.random.default_rng(1), flip=True, shift=1)
    assert moved.shape == dot.shape
    assert np.all(moved.max(axis=(1, 2)) == (1, 2, 3))
    places = {tuple(place) for place in np.argwhere(moved[..., 0] == 1)[:, 1:].tolist()}
    assert places == {(row, column) for row in (3, 4, 5) for column in (2, 3, 4, 5, 6)}


def test_a_folder_of_npz_files_is_data(tmp_path: Path) -> None:
    model = of(NpzFolder("mine"))
    folder = tmp_path / "data" / "mine"
    with pytest.raises(
        DataError, match=r"train\.npz is missing: expected an array for each input, and 'target'"
    ):
        data.load(model, tmp_path, 1)
    folder.mkdir(parents=True)
    inputs, target = np.zeros((24, 2), np.float32), np.arange(24)
    for split in ("train", "test"):
        np.savez(folder / f"{split}.npz", image=inputs, target=target)
    dataset = data.load(model, tmp_path, 1)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (22, 2, 24)
    for arrays, message in (
        ({"image": inputs}, "test\\.npz: expected an array for each input, and 'target', .*; it has image"),
        (
            {"a": inputs, "target": target},
            r"the test data of mine: expected the inputs image .*; it has a and",
        ),
        (
            {"image": inputs, "target": inputs},
            r"expected the inputs image and targets \(\), .* targets \(2,\)",
        ),
        (
            {"image": inputs, "target": target[:23]},
            r"as many rows of each; it has image float32 \[24, 2\], targets",
        ),
        ({"image": np.float32(1), "target": target}, r"as many rows of each; it has image float32 \[\]"),
        ({"image": inputs.astype(str), "target": target}, "expected numbers, .*; it has image <U"),
        ({"image": inputs, "target": target / 2}, r"classes as whole numbers; they are \[0\.5 1\.5"),
        (
            {"image": inputs[:0], "target": target[:0]},
            "expected 12 rows or more to train .* got 24 and 0",
        ),
    ):
        np.savez(folder / "test.npz", **arrays)
        with pytest.raises(DataError, match=message):
            data.load(model, tmp_path, 1)
    with (folder / "test.npz").open("wb") as file:
        np.save(file, inputs)
    with pytest.raises(DataError, match=r"test\.npz cannot be read as \.npz"):
        data.load(model, tmp_path, 1)


@pytest.mark.parametrize(
    ("given", "message"), [(7, "fails to load: TypeError"), (([], []), "expected Rows, got list")]
)
def test_what_a_models_own_data_returns_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: object, message: str
) -> None:
    model = load("language")
    monkeypatch.setattr("models.language.data.load", lambda _cache: given)
    with pytest.raises(DataError, match=message):
        data.load(model, tmp_path, 1)
