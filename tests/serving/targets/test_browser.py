import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Error, Page, sync_playwright

import models.base
from models.base import Model, Weights
from models.data import Rows
from models.signature import Signature, encode_text
from models.twins import drawn
from pipelines.exporting import keras_graph, samples
from pipelines.exporting import tfjs as exporter
from serving import golden
from serving.golden import Golden
from serving.repository import file_digests, read_manifest, version_dir, write_manifest
from serving.settings import Settings
from serving.targets.base import TargetError
from serving.targets.browser import BrowserClient, launch_chromium
from serving.targets.tfjs import TARGET
from tests.pictures import Images, as_floats
from tests.pipelines.test_publish import manifests
from tests.serving.gateway import answering, running, serve_version, settings_in

SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"
"""Where they are left, to be looked at."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def signature() -> Signature:
    return models.base.load("fashion").spec.signature


@pytest.fixture(scope="module")
def weights(model: Model) -> Weights:
    return drawn(model.initial_weights(1))


@pytest.fixture(scope="module")
def pictures(sample: Rows) -> Images:
    return as_floats(sample)[:250]


@pytest.fixture(scope="module")
def logits(model: Model, weights: Weights, pictures: Images) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = keras_graph.network(model, weights)(pictures).numpy()
    return logits


@pytest.fixture(scope="module")
def settings(
    model: Model,
    weights: Weights,
    sample: Rows,
    logits: NDArray[np.float32],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    settings = settings_in(tmp_path_factory.mktemp("artifacts"))
    shared = Settings.from_environment().artifacts / "web"
    shared.mkdir(parents=True, exist_ok=True)
    (settings.artifacts / "web").symlink_to(shared)
    first, second, third = (version_dir(settings.repository, "tfjs", "fashion", n) for n in (1, 2, 3))
    first.mkdir(parents=True)
    exporter.write(model, weights, first, {"image": as_floats(sample)[:1]})
    samples.write(model.spec, sample, first / "samples")
    shutil.copytree(first, second)
    shift_first_class(second, weights)
    shutil.copytree(second, third)
    # Right for the first version, whose first class the third has shifted by 1.
    sample_answer = Golden({"image": as_floats(sample)[:2]}, {"logits": logits[:2]}, 1e-4)
    for folder in (first, third):
        golden.write(folder, sample_answer)
    for folder in (first, second, third):
        described = replace(
            manifests("")["tfjs"],
            files=file_digests(folder),
            serve="model.json",
            signature=model.spec.signature.to_json(),
            task=model.spec.task.to_json(),
        )
        write_manifest(folder, described)
    serve_version(settings, 1)
    # What TF Serving's stand-in answers is right for the first sample only.
    row = np.exp(logits[0]) / np.exp(logits[0]).sum()
    predictions = [{"logits": logits[0].tolist(), "probabilities": row.tolist()}]

    def predict(_path: str, body: bytes) -> bytes:
        assert np.array(json.loads(body)["instances"]).shape == (1, 28, 28, 1)
        return json.dumps({"predictions": predictions}).encode()

    with answering(predict, settings.tf_serving_rest_port), running(settings):
        yield settings


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[BrowserClient]:
    client = TARGET.clients(settings)["browser"]
    assert isinstance(client, BrowserClient)
    yield client
    client.close()


def test_it_answers_as_keras_does(
    client: BrowserClient, pictures: Images, logits: NDArray[np.float32]
) -> None:
    outputs = client.predict({"image": pictures})
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4, rtol=0)
    expected = np.exp(outputs["logits"]) / np.exp(outputs["logits"]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5, rtol=0)
    assert client.version == 1


def test_a_moved_pointer_changes_the_next_prediction(
    client: BrowserClient, settings: Settings, pictures: Images, logits: NDArray[np.float32]
) -> None:
    for version in (2, 1, 2, 1):
        serve_version(settings, version)
        outputs = client.predict({"image": pictures[:3]})
        assert client.version == version
        np.testing.assert_allclose(outputs["logits"][:, 0] - logits[:3, 0], version - 1, atol=1e-4)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, settings: Settings) -> Iterator[Page]:
    """The page of version 1, with an answer for its first sample."""
    page = browser.new_page()
    page.goto(f"http://{settings.host}:{settings.tfjs_port}/")
    page.wait_for_selector("#values .winner")
    yield page
    page.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "predict({image: new Float32Array(783)}, 1)",
            r"image: expected 784 numbers for the shape \[1, 28, 28, 1\], got 783",
        ),
        ("predict({image: []}, 1)", "expected 784 numbers .* got 0"),
        ("predict(undefined, 1)", "expected 784 numbers .* got undefined"),
        ("predict({image: new Float32Array(784)}, 0)", "whole number of rows, at least 1, got 0"),
        (
            "predict({image: new Float32Array(784).fill(NaN, 5)}, 1)",
            "expected finite numbers, got NaN at position 5",
        ),
        ("predict({image: Array(784).fill('shoe')}, 1)", "expected finite numbers, got shoe at position 0"),
    ],
)
def test_bad_input_is_a_clear_error(page: Page, call: str, message: str) -> None:
    with pytest.raises(Error, match=message):
        page.evaluate(f"window.tandem.{call}")


def test_the_clients_error_is_the_pages(client: BrowserClient) -> None:
    with pytest.raises(TargetError, match="expected 784 numbers"):
        client.predict({"image": np.zeros((1, 27, 28, 1), np.float32)})
    assert client.predict({"image": np.zeros((1, 28, 28, 1), np.float32)})["logits"].shape == (1, 10)


def test_nested_numbers_are_taken_too(page: Page, pictures: Images, logits: NDArray[np.float32]) -> None:
    call = "async (image) => (await window.tandem.predict({image}, 2)).outputs.logits"
    answer = page.evaluate(call, pictures[:2].astype(float).tolist())
    np.testing.assert_allclose(answer, logits[:2], atol=1e-4)


def test_a_version_that_does_not_answer_its_golden_sample_is_refused_and_the_one_before_goes_on(
    page: Page, settings: Settings, pictures: Images, logits: NDArray[np.float32]
) -> None:
    predict = "async (image) => window.tandem.predict({image}, 1)"
    numbers = pictures[:1].astype(float).tolist()
    page.evaluate(predict, numbers)
    serve_version(settings, 3)
    try:
        for _ in range(2):
            answer = page.evaluate(predict, numbers)
            assert answer["version"] == 1
            np.testing.assert_allclose(answer["outputs"]["logits"], logits[:1], atol=1e-4)
            assert re.search(
                r"version 3 .* logits differs by 1\.00 .* the limit is 0\.000", answer["refused"]
            )
        page.locator("#samples button").first.click()
        page.wait_for_selector("#error:has-text('Version 3 of fashion cannot be loaded: golden sample')")
    finally:
        serve_version(settings, 1)
    assert page.evaluate(predict, numbers)["refused"] == ""


def test_calls_at_once_survive_a_swap(page: Page, settings: Settings) -> None:
    serve_version(settings, 2)
    call = "() => Promise.all(Array.from({length: 8}, () => window.tandem.predict({image: new Float32Array(784)}, 1)))"
    answers = page.evaluate(call)
    serve_version(settings, 1)
    assert [answer["version"] for answer in answers] == [2] * 8


def test_the_page_shows_a_sample_its_class_and_the_endpoints(
    browser: Browser, settings: Settings, model: Model, sample: Rows, logits: NDArray[np.float32]
) -> None:
    page = browser.new_page()
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"http://{settings.host}:{settings.tfjs_port}/")
    # The first sample is the first row, the second one is the next row of the first class.
    rows = (0, int(np.flatnonzero(sample.targets[1:] == 0)[0]) + 1)
    for position in (1, 0):
        expected = model.spec.task.classes[int(logits[rows[position]].argmax())]
        page.evaluate("document.getElementById('summary').replaceChildren()")
        page.locator("#samples button").nth(position).click()
        page.wait_for_selector(f"#samples button:nth-child({position + 1})[aria-pressed=true]")
        page.wait_for_selector("#summary:has-text('no answer')")
        assert page.text_content("#verdict strong") == expected
        assert page.text_content("#values .winner th") == expected
        assert page.text_content("#in-browser tr:nth-child(2) td") == expected
        assert milliseconds(time_of(page, "#in-browser tr:nth-child(2)")) > 0
    assert page.text_content("#served") == "fashion, version 1"
    assert page.get_attribute("#servers tr:nth-child(2)", "class") == "agrees"
    assert page.locator("#values .other").count() == 0
    for row in (3, 4, 5):
        assert page.text_content(f"#servers tr:nth-child({row}) td") == "not answering"
    assert page.text_content("#summary") == (
        f"All 2 endpoints that answered say {expected}. LiteRT, TorchServe, ONNX Runtime: no answer."
    )
    assert page.is_hidden("#error")
    assert [text for text in problems if "502 (Bad Gateway)" not in text] == []
    assert {url.split("/")[2] for url in requests} == {f"{settings.host}:{settings.tfjs_port}"}
    page.close()


def test_another_answer_is_marked(page: Page) -> None:
    page.locator("#samples button").nth(1).click()
    page.wait_for_selector("#summary:has-text('endpoints')")
    assert page.text_content("#servers tr:nth-child(2) td:nth-of-type(2)") in ("✗ no", "≈ same class")
    assert page.locator("#values .other .apart").count() > 0


def test_a_race_goes_on_without_the_targets_that_are_stopped(page: Page) -> None:
    page.focus("#start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#start:has-text('Stop the race')")
    page.wait_for_selector("#race-status:has-text('lowest median')")
    lines = page.locator("#times tbody tr").all_inner_texts()
    assert [line.split("\t")[0] for line in lines][1:] == [
        "TensorFlow Serving",
        "LiteRT",
        "TorchServe",
        "ONNX Runtime",
    ]
    for line in lines[:2]:
        _, median, ninety, fastest, calls, failed = line.split("\t")
        assert 0 < milliseconds(fastest) <= milliseconds(median) <= milliseconds(ninety)
        assert (calls.split()[0], failed) == ("100", "0")
    assert lines[2].split("\t")[4:] == ["0", "1"]
    assert "LiteRT: not answering." in (page.text_content("#race-status") or "")
    assert page.locator("#lanes .median").count() == 2
    page.locator("#samples button").first.click()
    page.wait_for_selector("#start:has-text('Start the race')")


def test_a_model_that_no_browser_runs_is_answered_by_the_servers(
    browser: Browser, settings: Settings
) -> None:
    first, other = (version_dir(settings.repository, "tfjs", "fashion", n) for n in (1, 4))
    shutil.copytree(first / "samples", other / "samples")
    described = read_manifest(first)
    write_manifest(
        other, replace(described, version=4, files=file_digests(other), unreachable="no conversion")
    )
    serve_version(settings, 4)
    try:
        page = browser.new_page()
        page.goto(f"http://{settings.host}:{settings.tfjs_port}/")
        page.wait_for_selector("#summary:has-text('endpoints')")
        assert page.text_content("#in-browser tr:nth-child(2) td") == "no conversion"
        assert page.text_content("#servers tr:nth-child(2) td:nth-of-type(2)") == "reference"
        assert page.text_content("#verdict strong") == page.text_content("#servers tr:nth-child(2) td")
        page.close()
    finally:
        serve_version(settings, 1)


@pytest.mark.parametrize("text", ["Grüße aus Kölle, und noch viel mehr als achtundvierzig Bytes", "a", ""])
def test_a_text_becomes_the_bytes_that_every_client_sends(page: Page, text: str) -> None:
    script = """async (text) => {
      const { typedInput } = await import("./fields.js");
      const parent = document.createElement("div");
      const input = typedInput(parent, "text", { content: "text", dtype: "int32", shape: [-1, 48] }, () => {});
      await input.set({ text });
      return [Array.from(await input.read()), parent.textContent];
    }"""
    values, told = page.evaluate(script, text)
    assert values == encode_text(text, 48).tolist()
    assert ("Only the first 48" in told) == (len(text.encode()) > 48)


def test_many_numbers_are_typed_as_json(page: Page) -> None:
    script = """async (typed) => {
      const { typedInput } = await import("./fields.js");
      const parent = document.createElement("div");
      const input = typedInput(parent, "signal", { content: "numbers", dtype: "float32", shape: [-1, 2, 9] }, () => {});
      await input.set({ signal: [[1, 2], [3]] });
      const sample = await input.read();
      parent.querySelector("textarea").value = typed;
      return [sample, await input.read().catch((error) => error.message)];
    }"""
    sample, told = page.evaluate(script, "[1, 2")
    assert sample == [1, 2, 3]
    assert told.startswith("signal: expected JSON of the shape [2,9]: ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_fits_and_every_control_has_a_name(
    browser: Browser, settings: Settings, scheme: Any, width: int
) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    page.goto(f"http://{settings.host}:{settings.tfjs_port}/")
    page.wait_for_selector("#summary:has-text('endpoints')")
    page.click("#start")
    page.wait_for_selector("#race-status:has-text('lowest median')")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"page-{scheme}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    nameless = """() => [...document.querySelectorAll("button, input, textarea, a[href], [role=region]")]
      .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()
        || one.querySelector("img[alt]") || one.hasAttribute("aria-labelledby"))).map((one) => one.outerHTML)"""
    assert page.evaluate(nameless) == []
    page.close()


def test_the_last_report_is_linked(page: Page, settings: Settings) -> None:
    assert page.is_hidden("#report")
    for name in ("20261127-120000", "20261128-051500", "20261128-061500"):
        (settings.artifacts / "reports" / name).mkdir(parents=True)
    (settings.artifacts / "reports" / "20261128-051500" / "index.html").write_text(
        "<!doctype html><h1>Figures</h1>"
    )
    page.reload()
    page.click("#report a")
    page.wait_for_selector("h1:has-text('Figures')")


def test_a_file_that_is_no_picture_is_a_sentence_until_the_next(page: Page) -> None:
    def file(contents: bytes) -> Any:
        return {"name": "shoe.png", "mimeType": "image/png", "buffer": contents}

    page.set_input_files("#file", file(b"no picture"))
    page.wait_for_selector("#error:has-text('This file is not a picture')")
    buffer = BytesIO()
    Image.new("RGB", (300, 200), "white").save(buffer, "PNG")
    page.set_input_files("#file", file(buffer.getvalue()))
    page.wait_for_selector("#error", state="hidden")
    assert page.get_attribute("#picture", "aria-label") == "The picture as the model sees it: shoe.png"


def test_no_published_version_is_a_sentence(browser: Browser, settings: Settings) -> None:
    (settings.repository / "tfjs" / "fashion" / "current.json").unlink()
    try:
        page = browser.new_page()
        page.goto(f"http://{settings.host}:{settings.tfjs_port}/")
        page.wait_for_selector("#error:has-text('No version of fashion is published')")
        page.close()
    finally:
        serve_version(settings, 1)


def test_a_gateway_that_does_not_answer_is_a_target_error(tmp_path: Path) -> None:
    client = BrowserClient(f"http://127.0.0.1:{settings_in(tmp_path).tfjs_port}/", signature())
    with pytest.raises(TargetError, match="ERR_CONNECTION_REFUSED"):
        client.predict({"image": np.zeros((1, 28, 28, 1), np.float32)})
    client.close()


def shift_first_class(folder: Path, weights: Weights) -> None:
    """Add one to the bias of the first class in a converted model's weight file."""
    (path,) = folder.glob("*.bin")
    contents = path.read_bytes()
    bias = weights["classifier/bias"]
    assert contents.count(bias.tobytes()) == 1
    shifted = bias + np.eye(len(bias), dtype=np.float32)[0]
    path.write_bytes(contents.replace(bias.tobytes(), shifted.tobytes()))


def time_of(page: Page, row: str) -> str:
    return page.text_content(f"{row} td:last-child") or ""


def milliseconds(text: str) -> float:
    return float(text.removesuffix(" ms"))
