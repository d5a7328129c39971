"""Strict schemas: Kubernetes's own in several versions, and those of custom resources, which lie in schemas/."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.k8s.manifests import Document, name_of

VERSIONS = ("1.33", "1.35", "1.37")
"""The oldest that every component runs on, one between, and the newest that there is a schema of."""
CUSTOM = Path(__file__).with_name("schemas")


def faults(documents: Sequence[Document], version: str) -> Iterator[str]:
    """What in the documents a version of Kubernetes would refuse, a line each."""
    for document in documents:
        for error in _errors(version, json.dumps(document)):
            yield f"Kubernetes {version}: {name_of(document)}: {error}"


@functools.cache
def _errors(version: str, document: str) -> tuple[str, ...]:
    """The same documents stand in many combinations: each is checked once."""
    content = json.loads(document)
    validator = _validator(version, content["apiVersion"], content["kind"])
    return tuple(f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(content))


@functools.cache
def _validator(version: str, api: str, kind: str) -> Draft202012Validator:
    group, _, number = api.rpartition("/")
    own = CUSTOM / f"{kind}.yaml"
    if own.exists():
        schema = yaml.safe_load(own.read_text())
    else:
        prefix = f"{group.split('.')[0]}-" if group else ""
        schema = json.loads((_folder(version) / f"{kind.lower()}-{prefix}{number}.json").read_text())
    return Draft202012Validator(schema, registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> Registry[Document]:
    definitions = json.loads((_folder(version) / "_definitions.json").read_text())
    empty: Registry[Document] = Registry()
    whole: Registry[Document] = empty.with_resource(
        definitions["$id"], Resource.from_contents(definitions)
    ).crawl()
    return whole


def _folder(version: str) -> Path:
    package = Path(str(importlib.resources.files("kubernetes_validate")))
    return package / "kubernetes-json-schema" / f"v{version}.0-local-strict"
