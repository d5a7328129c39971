"""A .mar: a zip with a manifest that names the handler, and the version to register it under."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.repository import GOLDEN

MANIFEST = "MAR-INF/MANIFEST.json"
SIGNATURE = "signature.json"
HANDLER = Path(__file__).with_name("handler.py")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip can name: equal contents give equal archives."""


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Write an archive beside `path` and rename it, so that a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(files.items()):
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_archive(path: Path) -> dict[str, bytes]:
    """All files of an archive. Raises `zipfile.BadZipFile` where it is none."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def stage(source: Path, destination: Path, version: int, *, batched: bool) -> None:
    """Copy an archive with what is known only after its export: its version, its golden sample, and whether the
    gate has shown that requests may share a run.

    An archive whose handler cannot say which version answers, as the first ones could not, gets today's handler.
    """
    files = read_archive(source)
    manifest = json.loads(files[MANIFEST])
    manifest["model"]["modelVersion"] = str(version)
    signature = json.loads(files[SIGNATURE]) | {"batched": batched}
    changed = {MANIFEST: manifest, SIGNATURE: signature}
    written = {name: json.dumps(document, indent=2).encode() for name, document in changed.items()}
    if (sample := source.with_name(GOLDEN)).exists():
        written[GOLDEN] = sample.read_bytes()
    if b'"describe"' not in files.get(HANDLER.name, b'"describe"'):
        written[HANDLER.name] = HANDLER.read_bytes()
        written[SIGNATURE] = json.dumps(_as_today(signature), indent=2).encode()
    write_archive(destination, files | written)


def _as_today(signature: dict[str, Any]) -> dict[str, Any]:
    """The signature of the first archives, of one picture and its classes, as today's handler reads it."""
    if "input" not in signature:
        return signature
    picture = {"dtype": "float32", "shape": ["batch", *signature["shape"]], "content": "picture"}
    output = {"dtype": "float32", "shape": ["batch", len(signature["classes"])], "content": "numbers"}
    inputs, outputs = {signature["input"]: picture}, dict.fromkeys(signature["outputs"], output)
    return signature | {"inputs": inputs, "outputs": outputs}
