"""The OpenAPI document of the REST front."""

from __future__ import annotations

from functools import cache
from typing import Any

from serving.server.oip.codec import DTYPES

Document = dict[str, Any]

STRING: Document = {"type": "string"}
BOOLEAN: Document = {"type": "boolean"}
COUNT: Document = {"type": "integer", "minimum": 0}

ERRORS = {
    400: "The request does not say, or does not hold, what was expected.",
    404: "No such model or version is served.",
    413: "The body, or the number of rows, is over a limit of the server.",
    415: "The body is compressed in a way that is not read here.",
    503: "Not now: nothing is loaded, the server is stopping, or its queue is full.",
    504: "The answer would have come too late.",
}


@cache
def openapi() -> Document:
    """OpenAPI 3.1: every path with what it takes and every status with what it brings."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tandem model server",
            "version": "2.0",
            "summary": "Open Inference Protocol v2 with binary tensors, model repository and statistics.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v2": {"get": _operation("server_metadata", "About the server", "ServerMetadata")},
            "/v2/health/live": {"get": _operation("server_live", "Whether the process answers", "Live")},
            "/v2/health/ready": {
                "get": _operation("server_ready", "Whether every model answers", "Ready", errors=(503,))
            },
            **_of_model("", "get", "model_metadata", "A model's inputs and outputs", "ModelMetadata"),
            **_of_model("/ready", "get", "model_ready", "Whether a model answers", "ModelReady"),
            **_of_model("/config", "get", "model_config", "A model in Triton's words", "ModelConfig"),
            **_of_model("/stats", "get", "model_statistics", "A model's statistics", "Statistics"),
            "/v2/models/stats": {"get": _operation("statistics", "All models' statistics", "Statistics")},
            **_of_model("/infer", "post", "infer", "Inference", "InferenceResponse"),
            "/v2/repository/index": {"post": _repository("index", "What the repository holds", "Index")},
            "/v2/repository/models/{model}/load": {
                "parameters": [_path("model")],
                "post": _repository(
                    "load", "Load what the repository holds of a model", "Nothing", (404, 504)
                ),
            },
            "/v2/repository/models/{model}/unload": {
                "parameters": [_path("model")],
                "post": _repository(
                    "unload", "Unload a model until it is loaded again", "Nothing", (404, 504)
                ),
            },
        },
        "components": {"schemas": _schemas()},
    }


def _of_model(tail: str, method: str, name: str, summary: str, answer: str) -> Document:
    """The paths of a model and of one of its versions."""
    paths: Document = {}
    for suffix, path, names in (
        ("", "/v2/models/{model}", ("model",)),
        ("_of_version", "/v2/models/{model}/versions/{version}", ("model", "version")),
    ):
        operation = (
            _inference(name + suffix, summary)
            if method == "post"
            else _operation(name + suffix, summary, answer, errors=(400, 404, 503))
        )
        paths[path + tail] = {"parameters": [_path(each) for each in names], method: operation}
    return paths


def _path(name: str) -> Document:
    schema = (
        {"type": "string", "pattern": r"^[0-9]{1,18}$"} if name == "version" else _text(pattern=r"^[^/]+$")
    )
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _operation(name: str, summary: str, answer: str, errors: tuple[int, ...] = ()) -> Document:
    responses = {"200": {"description": "OK", "content": _json(answer)}}
    responses |= {
        str(status): {"description": ERRORS[status], "content": _json("Error")} for status in errors
    }
    return {"operationId": name, "summary": summary, "responses": responses}


def _repository(name: str, summary: str, answer: str, errors: tuple[int, ...] = ()) -> Document:
    operation = _operation(f"repository_{name}", summary, answer, tuple(sorted((400, 413, 415, *errors))))
    schema = "IndexRequest" if name == "index" else "RepositoryRequest"
    return operation | {"requestBody": {"required": False, "content": _json(schema)}}


def _inference(name: str, summary: str) -> Document:
    operation = _operation(name, summary, "InferenceResponse", tuple(ERRORS))
    operation["responses"]["200"]["content"]["application/octet-stream"] = {}
    operation["parameters"] = [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "Bytes of JSON before binary tensors; 0: the body is the one input's raw data",
            "schema": COUNT,
        }
    ]
    operation["requestBody"] = {
        "required": True,
        "content": _json("InferenceRequest")
        | {media: {} for media in ("application/octet-stream", "image/png", "image/jpeg")},
    }
    return operation


def _json(schema: str) -> Document:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(schema: str) -> Document:
    return {"$ref": f"#/components/schemas/{schema}"}


def _text(**limits: object) -> Document:
    return STRING | limits


def _list(items: Document, **limits: object) -> Document:
    return {"type": "array", "items": items} | limits


def _object(optional: tuple[str, ...] = (), **properties: Document) -> Document:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _schemas() -> Document:
    datatype = {"enum": list(DTYPES)}
    shape = _list({"type": "integer", "minimum": -1})
    durations = ("compute_input", "compute_infer", "compute_output")
    more = ("success", "fail", "queue", "cache_hit", "cache_miss")
    configured = _list(_object(name=STRING, data_type=STRING, dims=shape))
    described = _list(_object(name=STRING, datatype=STRING, shape=shape))
    return {
        "Error": _object(error=STRING) | {"additionalProperties": False},
        "Nothing": {"type": "object", "maxProperties": 0},
        "Live": _object(live=BOOLEAN),
        "Ready": _object(ready=BOOLEAN),
        "ServerMetadata": _object(name=STRING, version=STRING, extensions=_list(STRING)),
        "ModelReady": _object(name=STRING, version=STRING, ready=BOOLEAN),
        "ModelMetadata": _object(
            name=STRING, versions=_list(STRING), platform=STRING, inputs=described, outputs=described
        ),
        "ModelConfig": _object(
            name=STRING,
            platform=STRING,
            backend=STRING,
            max_batch_size=COUNT,
            input=configured,
            output=configured,
        ),
        "Parameters": {"type": "object"},
        "RequestParameters": _object(
            ("timeout", "binary_data_output"),
            timeout=COUNT | {"description": "Microseconds; 0: none"},
            binary_data_output=BOOLEAN,
        ),
        "InputParameters": _object(("binary_data_size",), binary_data_size=COUNT),
        "OutputParameters": _object(("binary_data",), binary_data=BOOLEAN),
        "Data": {
            "description": "Flat or nested; pictures are BYTES in base64.",
            "type": ["array", "number", "string", "boolean"],
        },
        "InferenceRequest": _object(
            ("id", "parameters", "outputs"),
            id=STRING,
            parameters=_ref("RequestParameters"),
            inputs=_list(
                _object(
                    ("parameters", "data"),
                    name=STRING,
                    shape=_list(COUNT, maxItems=32),
                    datatype=datatype,
                    parameters=_ref("InputParameters"),
                    data=_ref("Data"),
                )
            ),
            outputs=_list(_object(("parameters",), name=STRING, parameters=_ref("OutputParameters"))),
        ),
        "InferenceResponse": _object(
            ("id",),
            model_name=STRING,
            model_version=STRING,
            id=STRING,
            outputs=_list(
                _object(
                    ("parameters", "data"),
                    name=STRING,
                    shape=_list(COUNT),
                    datatype=datatype,
                    parameters=_ref("Parameters"),
                    data=_ref("Data"),
                )
            ),
        ),
        "IndexRequest": _object(("ready",), ready=BOOLEAN),
        "RepositoryRequest": _object(("parameters",), parameters=_ref("Parameters")),
        "Index": _list(_object(name=STRING, version=STRING, state=STRING, reason=STRING)),
        "Duration": _object(count=COUNT, ns=COUNT),
        "Statistics": _object(
            model_stats=_list(
                _object(
                    name=STRING,
                    version=STRING,
                    last_inference=COUNT,
                    inference_count=COUNT,
                    execution_count=COUNT,
                    inference_stats=_object((), **{name: _ref("Duration") for name in (*durations, *more)}),
                    batch_stats=_list(
                        _object((), batch_size=COUNT, **{name: _ref("Duration") for name in durations})
                    ),
                )
            )
        ),
    }
