"""TensorFlow Serving's REST: predict, classify, regress, status and metadata.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.server.dataplane import Call, DataPlane
from serving.server.errors import InvalidRequestError
from serving.server.http import Request, Response, Route
from serving.server.protocols import tfs_json, tfs_json_answers
from serving.server.repository.versions import Status
from serving.server.tensors.signature import DEFAULT_SIGNATURE
from serving.server.tfs.metrics import TfsMetrics
from serving.server.tfs.models import ModelSpec, Served, statuses

VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
MODEL = rf"(?ai:/v1/models/(?P<model>[^/:]+){VERSION})"
"""Like the original's, without case but for the names."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
LARGEST = 2**63 - 1


def routes(
    plane: DataPlane,
    metrics: TfsMetrics,
    *,
    check_methods: bool = False,
    batching: bool = False,
    cors: bool = False,
) -> list[Route]:
    """The front's routes.

    `check_methods`: classify and regress only by signatures that were saved for it; `batching`: requests share runs;
    `cors`: OPTIONS is left to preflights.
    """
    front = TfsRest(Served(plane, "tfs-rest", "REST", metrics, batching), check_methods)
    return [
        Route("POST", f"{MODEL}:predict", front.predict),
        Route("POST", f"{MODEL}:classify", front.classify),
        Route("POST", f"{MODEL}:regress", front.regress),
        Route("GET", f"{MODEL}/metadata", front.metadata),
        Route("GET", f"{MODEL}(?ai:/metadata)?", front.status),
        Route("GET", rf"(?ai:/v1/models{VERSION}(?:/metadata)?)", front.nameless),
        *(
            Route(method, "(?ai:/v1)/.*", front.malformed)
            for method in (METHODS if cors else (*METHODS, "OPTIONS"))
        ),
    ]


class TfsRest:
    """The handlers; each answers or raises a `ServerError`."""

    def __init__(self, served: Served, check_methods: bool) -> None:
        self._served = served
        self._plane = served.plane
        self._check_methods = check_methods

    async def predict(self, request: Request) -> Response:
        """Prediction in row form (`instances` -> `predictions`) or column form (`inputs` -> `outputs`)."""
        document = tfs_json.parse(request.body)
        key = tfs_json.signature_name(document) or DEFAULT_SIGNATURE
        with self._served.lease(_asked(request), "predict") as version:
            if key not in version.signatures:
                known = ", ".join(sorted(version.signatures))
                raise InvalidRequestError(
                    f'Serving signature name: "{key}" not found in signature def; '
                    f"model {version.model} has: {known}"
                )
            signature = version.signatures[key]
            inputs, rows = tfs_json.read(document, signature)
            call = Call(signature.defaults | inputs, signature=key, pictures=False, finite=False)
            return Response(tfs_json_answers.write(await self._served.infer(version, call, "Predict"), rows))

    async def classify(self, request: Request) -> Response:
        """Classification of tf.Examples: for each, its classes with their scores."""
        from serving.server.tfs.examples import CLASSIFY

        answer = await self._infer(request, CLASSIFY)
        rows = [[[c.label, _float32(c.score)] for c in row.classes] for row in answer.classifications]
        return Response(tfs_json_answers.wrap("results", tfs_json_answers.dumps(rows)))

    async def regress(self, request: Request) -> Response:
        """Regression of tf.Examples: for each, a number."""
        from serving.server.tfs.examples import REGRESS

        answer = await self._infer(request, REGRESS)
        values = [_float32(r.value) for r in answer.regressions]
        return Response(tfs_json_answers.wrap("results", tfs_json_answers.dumps(values)))

    async def status(self, request: Request) -> Response:
        """The state of every version, or of one."""
        known = statuses(self._plane, _asked(request))
        return Response(tfs_json_answers.indented({"model_version_status": [_state(n, s) for n, s in known]}))

    async def metadata(self, request: Request) -> Response:
        """The signatures of a version."""
        from google.protobuf.json_format import MessageToDict

        from serving.server.tfs.metadata import signature_defs

        spec = _asked(request)
        with self._served.lease(spec, "metadata") as version:
            definitions = MessageToDict(
                signature_defs(version),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            asked = {"name": spec.name, "signature_name": "", "version": str(version.number)}
        texts = (tfs_json_answers.indented(asked), tfs_json_answers.indented(definitions))
        return Response(b'{\n"model_spec":%b,\n"metadata": {"signature_def": %b}\n}\n' % texts)

    async def nameless(self, _request: Request) -> Response:
        """The status of all models, which the original has not either."""
        raise InvalidRequestError("Missing model name in request.")

    async def malformed(self, request: Request) -> Response:
        """Whatever else lies under /v1."""
        raise InvalidRequestError(f"Malformed request: {request.method} {request.path[:200]}")

    async def _infer(self, request: Request, method: str) -> Any:  # noqa: ANN401 - see tfs_examples.infer
        from serving.server.protocols import tfs_examples

        document = tfs_json.parse(request.body)
        key = tfs_json.signature_name(document)
        examples = tfs_examples.serialized(tfs_examples.input_of(document))
        with self._served.lease(_asked(request), method.rpartition("/")[2]) as version:
            key = tfs_examples.signature_for(version.signatures, method, key, self._check_methods)
            return await tfs_examples.infer(self._served, version, method, key, examples)


def _asked(request: Request) -> ModelSpec:
    given = request.variables
    number = int(given["version"][:20]) if given["version"] else None
    if number is not None and number > LARGEST:
        raise InvalidRequestError(f"Failed to convert version: {given['version'][:40]} to numeric.")
    return ModelSpec(given["model"], number, given["label"] or "")


def _state(number: int, status: Status) -> dict[str, object]:
    fault = status.fault
    return {
        "version": str(number),
        "state": status.state.value,
        "status": {
            "error_code": fault.code.name if fault else "OK",
            "error_message": str(fault) if fault else "",
        },
    }


def _float32(value: float) -> np.float32:
    # JSON of a double shows digits that a float has not.
    return np.float32(value)
