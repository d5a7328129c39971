"""Whatever is asked at the same time, each caller gets its own rows, its outputs, its id; or its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from .artifacts import images, logits, write_company, write_manifest, write_onnx, write_tflite
from .conformance.clients import predict_request
from .processes import ServerProcess, running, running_tfs

OUTPUTS: dict[str, tuple[str, ...]] = {"fashion": ("logits", "probabilities")}


@dataclass(frozen=True)
class Request:
    """What one client asks."""

    model: str
    rows: int
    seed: int
    outputs: tuple[str, ...]
    id: str
    wrong: bool
    """True if the shape of its input is wrong."""

    @property
    def array(self) -> Any:
        """Its input: pictures, or float32 [rows, 2]."""
        if self.model == "fashion":
            return images(self.rows, self.seed)
        return np.random.default_rng(self.seed).normal(0.5, 1, (self.rows, 2)).astype(np.float32)

    @property
    def sent(self) -> Any:
        """What the client sends as its input."""
        return self.array[:, :1] if self.wrong else self.array

    @property
    def refusal(self) -> str:
        """What the error says; "": there is none."""
        if self.wrong:
            return "shape"
        # Its manifest says that it keeps rows apart; that is wrong for such rows, and shows in their number.
        lies = self.model == "positive" and (self.array[:, 0] <= 0).any()
        return "model positive, version 1: expected" if lies else ""

    def check(self, answer: dict[str, Any]) -> None:
        """Assert that these are the answers to this request alone."""
        names = OUTPUTS.get(self.model, ("y",))
        assert list(answer) == list(self.outputs or names)
        for name, array in answer.items():
            np.testing.assert_allclose(array, self._expected(name), atol=1e-5, err_msg=f"{self} {name}")

    def _expected(self, name: str) -> Any:
        if self.model != "fashion":
            return np.argwhere(self.array > 0) if self.model == "nonzero" else self.array
        values = logits(self.array)
        return values if name == "logits" else np.exp(values) / np.exp(values).sum(1, keepdims=True)


class Oip:
    """Triton's own client: REST with JSON or binary tensors, or gRPC."""

    def __init__(self, server: ServerProcess, kind: str) -> None:
        self._kind = kind
        self._client: Any = (
            triton_grpc_aio.InferenceServerClient(server.grpc)
            if kind == "grpc"
            else triton_http_aio.InferenceServerClient(server.http, conn_limit=100)
        )
        self.close = self._client.close

    async def ask(self, request: Request) -> dict[str, Any] | str:
        library: Any = triton_grpc if self._kind == "grpc" else triton_http
        options = {} if self._kind == "grpc" else {"binary_data": self._kind == "binary"}
        tensor = library.InferInput(
            "image" if request.model == "fashion" else "x", request.sent.shape, "FP32"
        )
        tensor.set_data_from_numpy(request.sent, **options)
        # A binary answer to a request that names no output is asked for by a parameter of the whole.
        names = request.outputs or (OUTPUTS.get(request.model, ("y",)) if options else ())
        outputs = [library.InferRequestedOutput(name, **options) for name in names]
        try:
            answer = await self._client.infer(
                request.model,
                [tensor],
                outputs=outputs or None,
                request_id=request.id,
                parameters={"mine": "1"},
            )
        except InferenceServerException as error:
            return str(error)
        response = answer.get_response()
        if self._kind == "grpc":
            names, given_id = [output.name for output in response.outputs], response.id
        else:
            names, given_id = [output["name"] for output in response["outputs"]], response.get("id", "")
        assert given_id == request.id
        return {name: answer.as_numpy(name) for name in names}


class Tfs:
    """TensorFlow Serving's REST and gRPC, which have no ids; REST has no choice of outputs."""

    def __init__(self, server: ServerProcess, kind: str) -> None:
        self._address = f"http://{server.http}"
        self._session = aiohttp.ClientSession()
        self._channel = grpc.aio.insecure_channel(server.grpc)
        self.ask = self._rest if kind == "rest" else self._grpc

    async def close(self) -> None:
        await self._session.close()
        await self._channel.close(None)

    async def _rest(self, request: Request) -> dict[str, Any] | str:
        url = f"{self._address}/v1/models/{request.model}:predict"
        async with self._session.post(url, json={"inputs": request.sent.tolist()}) as response:
            document = await response.json()
        if response.status != 200:
            return str(document["error"])
        names = request.outputs or OUTPUTS[request.model]
        return {name: np.array(document["outputs"][name], np.float32) for name in names}

    async def _grpc(self, request: Request) -> dict[str, Any] | str:
        import tensorflow as tf
        from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

        message = predict_request(request.model, image=request.sent)
        message.output_filter[:] = request.outputs
        stub: Any = PredictionServiceStub(self._channel)
        try:
            answer = await stub.Predict(message)
        except grpc.aio.AioRpcError as error:
            return str(error.details())
        names = request.outputs or OUTPUTS[request.model]
        assert set(answer.outputs) == set(names)
        return {name: tf.make_ndarray(answer.outputs[name]) for name in names}


@pytest.fixture(scope="module")
def onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """`fashion` and `positive`, whose manifests allow batching, and `nonzero` without a manifest."""
    root = tmp_path_factory.mktemp("answers")
    write_manifest(write_onnx(root / "repository" / "fashion", 1), batched=True, finite=True)
    write_manifest(write_company(root / "repository" / "positive", "positive"), batched=True)
    write_company(root / "repository" / "nonzero", "nonzero")
    with running("onnxruntime", root) as server:
        yield server


@pytest.fixture(scope="module")
def litert_batched(saved_models: Path) -> Iterator[ServerProcess]:
    """`fashion` by LiteRT, batched."""
    root = saved_models / "litert_batched"
    write_tflite(root / "repository" / "fashion", saved_models / "fashion" / "1")
    with running("litert", root, "--batching") as server:
        yield server


@pytest.fixture(scope="module")
def tensorflow(saved_models: Path) -> Iterator[ServerProcess]:
    """`fashion` by `tandem-tf-serving`, batched."""
    folder = saved_models / "answers"
    folder.mkdir()
    (folder / "1").symlink_to(saved_models / "fashion" / "1")
    flags = ("--model_name=fashion", f"--model_base_path={folder}", "--enable_batching")
    with running_tfs(folder, *flags, models=("fashion",)) as server:
        yield server


MODELS = ("fashion", "positive", "nonzero")
ENDPOINTS = [
    pytest.param(fixture, client, kind, models, id=f"{fixture}-{kind}", marks=marks)
    for fixture, client, kinds, models, marks in (
        ("onnxruntime", Oip, ("json", "binary", "grpc"), MODELS, ()),
        ("litert_batched", Oip, ("json", "binary", "grpc"), ("fashion",), pytest.mark.slow),
        ("tensorflow", Tfs, ("rest", "grpc"), ("fashion",), pytest.mark.slow),
    )
    for kind in kinds
]


def requests(models: tuple[str, ...]) -> st.SearchStrategy[list[Request]]:
    """What some clients ask at the same time; one in six sends a wrong shape."""

    def of(model: str) -> st.SearchStrategy[Request]:
        names = OUTPUTS.get(model, ("y",))
        return st.builds(
            Request,
            st.just(model),
            st.integers(1, 6),
            st.integers(0, 1000),
            st.sampled_from([(), *((name,) for name in names), tuple(reversed(names))]),
            st.text("ab0-_", max_size=8),
            st.sampled_from([False] * 5 + [True]),
        )

    return st.lists(st.sampled_from(models).flatmap(of), min_size=4, max_size=24)


@pytest.mark.parametrize(("fixture", "client", "kind", "models"), ENDPOINTS)
def test_each_caller_gets_its_own_answer(
    request: pytest.FixtureRequest, fixture: str, client: Any, kind: str, models: tuple[str, ...]
) -> None:
    server = request.getfixturevalue(fixture)
    with asyncio.Runner() as runner:

        async def everyone(asked: list[Request]) -> None:
            async with AsyncExitStack() as stack:
                endpoint = client(server, kind)
                stack.push_async_callback(endpoint.close)
                answers = await asyncio.gather(*(endpoint.ask(one) for one in asked))
            for one, answer in zip(asked, answers, strict=True):
                if one.refusal:
                    assert isinstance(answer, str), one
                    assert one.refusal in answer
                else:
                    assert isinstance(answer, dict), (one, answer)
                    one.check(answer)

        # What a failure depends on is who comes together, so there is nothing to shrink.
        @settings(max_examples=30 if len(models) > 1 else 15, deadline=None, phases=[Phase.generate])
        @given(requests(models))
        def ask(asked: list[Request]) -> None:
            runner.run(everyone(asked))

        ask()


@pytest.mark.parametrize("kind", ["json", "grpc"])
async def test_requests_do_share_runs_where_the_manifest_allows_it(
    onnxruntime: ServerProcess, kind: str
) -> None:
    def rows() -> tuple[float, float]:
        page = onnxruntime.call("GET", "/metrics").body.decode()
        wanted = [f'tandem_batch_rows_{what}{{model="fashion"}} ' for what in ("sum", "count")]
        found = [float(page.split(name)[1].split()[0]) if name in page else 0.0 for name in wanted]
        return found[0], found[1]

    rows_before, runs_before = rows()
    client = Oip(onnxruntime, kind)
    for turn in range(1, 11):  # Which requests meet depends on the machine.
        await asyncio.gather(*(client.ask(Request("fashion", 1, seed, (), "", False)) for seed in range(64)))
        ran, runs = rows()
        assert ran - rows_before == 64 * turn
        if runs - runs_before < 64 * turn:
            break
    await client.close()
    assert runs - runs_before < 64 * turn
