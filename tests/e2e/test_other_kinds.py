"""A model of another kind touches only its folder: here one with two inputs of numbers, whose output is a quantity."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from pipelines.publish import pointer
from serving import targets
from serving.settings import PREFIX, Settings
from tests.e2e.browser import load_runtime, opened
from tests.e2e.conftest import PORTS, until
from tests.pipelines.project import Project
from tests.serving.gateway import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "house"
SPEC = """
from models.base import ModelSpec, Profile
from models.data import OwnData
from models.regression import Regression
from models.signature import Tensor

SPEC = ModelSpec(
    name="house",
    inputs=(Tensor("size", "float32", ("batch", 3)), Tensor("district", "int32", ("batch", 1))),
    task=Regression(("price",)),
    data=OwnData("houses"),
    profiles={"brief": Profile(epochs=12, peak_learning_rate=2e-2, minimum_score=0.8, batch_size=64,
                               training_loss=1e-2, score_difference=0.05)},
    precisions=("float32", "float16"),
)
"""
DATA = """
import numpy as np
from models.data import Rows

PRICES = np.array([1.0, 2.0, 0.5, 3.0], np.float32)


def load(cache):
    return rows(1, 3000), rows(2, 500)


def rows(seed, count):
    generator = np.random.default_rng(seed)
    size = generator.random((count, 3), np.float32)
    district = generator.integers(0, 4, (count, 1), np.int32)
    price = (size.sum(axis=1) * 0.5 + 1) * PRICES[district[:, 0]]
    return Rows({"size": size, "district": district}, price[:, None].astype(np.float32))
"""
KERAS = """
import keras
from keras import layers, ops


def build(spec):
    size = keras.Input((3,), name="size")
    district = keras.Input((1,), name="district", dtype="int32")
    place = layers.Embedding(4, 8, name="place")(ops.clip(district[:, 0], 0, 3))
    x = layers.Concatenate()([layers.Dense(16, name="widen")(size), place])
    x = ops.relu(layers.Dense(32, name="hidden")(x))
    x = ops.relu(layers.Dense(32, name="deeper")(x))
    return keras.Model([size, district], layers.Dense(1, name="head")(x), name="house")
"""
TORCH = """
import torch
from torch import nn


def build(spec):
    return Network()


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Embedding(4, 8)
        self.widen = nn.Linear(3, 16)
        self.hidden = nn.Linear(24, 32)
        self.deeper = nn.Linear(32, 32)
        self.head = nn.Linear(32, 1)

    def forward(self, size, district):
        place = self.place(district[:, 0].clamp(0, 3))
        x = torch.cat([self.widen(size), place], dim=1)
        x = torch.relu(self.hidden(x))
        x = torch.relu(self.deeper(x))
        return self.head(x)
"""
SCHEMA = {
    "feature": [
        {
            "name": "size",
            "type": "FLOAT",
            "shape": {"dim": [{"size": 3}]},
            "float_domain": {"min": 0, "max": 1},
            "skew_comparator": {"jensen_shannon_divergence": {"threshold": 0.05}},
        },
        {
            "name": "district",
            "type": "INT",
            "shape": {"dim": [{"size": 1}]},
            "int_domain": {"min": 0, "max": 3},
        },
        {"name": "label", "type": "FLOAT", "shape": {"dim": [{"size": 1}]}},
    ],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Settings]]:
    project = Project.create(tmp_path_factory.mktemp("house"))
    folder = project.folder / "models" / NAME
    folder.mkdir()
    files = {"__init__": "", "spec": SPEC, "data": DATA, "keras_model": KERAS, "torch_model": TORCH}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    web = Settings.from_environment().artifacts / "web"
    if web.exists():
        project.artifacts.mkdir()
        (project.artifacts / "web").symlink_to(web)
    values = {"model": NAME, "profile": "brief", "artifacts": project.artifacts}
    values |= zip(PORTS, free_ports(len(PORTS)), strict=True)
    project.environment.update({PREFIX + name.upper(): str(value) for name, value in values.items()})
    try:
        yield project, Settings.from_environment(project.environment)
    finally:
        project.tandem("down")


def test_a_regression_with_two_inputs_deploys_to_every_target(project: tuple[Project, Settings]) -> None:
    own, settings = project
    done = own.tandem("deploy", timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    now = pointer(settings.repository, NAME)
    assert now is not None
    assert now.version == 1
    for line in done.stdout.splitlines():
        if line.startswith("curl") and "/metrics" not in line:
            answer = subprocess.run(["sh", "-c", line], cwd=own.folder, capture_output=True, text=True)
            assert answer.returncode == 0, line
            assert any(word in answer.stdout for word in ('"predictions"', '"outputs"', "<html")), (
                answer.stdout
            )


def test_every_client_gives_the_price(project: tuple[Project, Settings]) -> None:
    _, settings = project
    inputs = {
        "size": np.array([[0.5, 0.5, 0.5], [0, 0, 0]], np.float32),
        "district": np.array([[1], [3]], np.int32),
    }
    prices = {}
    for name in targets.NAMES:
        if name != "tfjs":
            for protocol, client in targets.load(name).clients(settings).items():
                prices[name, protocol] = client.predict(inputs)["value"]
                client.close()
    assert len(prices) == 11
    for (name, protocol), found in prices.items():
        assert found.shape == (2, 1)
        assert found[:, 0] == pytest.approx([3.5, 3.0], abs=0.6), (name, protocol)
        source, own = targets.load(name).source, list(prices.items())
        like = next(found for (other, _), found in own if targets.load(other).source == source)
        np.testing.assert_allclose(found, like, rtol=0, atol=2e-5, err_msg=f"{name} {protocol}")


def test_predict_takes_json_by_the_inputs_names(project: tuple[Project, Settings]) -> None:
    own, _ = project
    done = own.tandem("predict", "litert", "--input", '{"size": [0.5, 0.5, 0.5], "district": [1]}')
    assert done.returncode == 0, done.stderr
    assert "price 3." in done.stdout
    done = own.tandem("predict", "litert", "--input", '{"size": [0.5], "district": [1]}')
    assert (done.returncode, done.stderr) == (1, "error: size: expected float32 [3], got the shape [1]\n")


@pytest.mark.browser
def test_the_page_has_a_field_for_each_number_and_runs_every_artifact(
    project: tuple[Project, Settings],
) -> None:
    with opened(project[1], 360) as page:
        assert page.locator("#fields legend").all_inner_texts() == ["size", "district"]
        for runtime in ("LiteRT.js", "ONNX Runtime Web"):
            load_runtime(page, runtime)
        fields = page.locator("#fields input")
        for index, value in enumerate(("0.5", "0.5", "0.5", "1")):
            fields.nth(index).fill(value)
        until(lambda: float(page.text_content("#verdict strong") or "") == pytest.approx(3.5, abs=0.6), 20)
        page.wait_for_selector("#summary:has-text('7 endpoints answered')")
        fields.nth(3).fill("1.5")
        page.wait_for_selector("#error:has-text('District: expected whole numbers of 32 bits, got 1.5')")
        fields.nth(0).fill("")
        page.wait_for_selector("#error:has-text('Size 1 of 3: expected a number')")
