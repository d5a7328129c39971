"""A .mar: a zip with a manifest that names the handler, and the version to register it under."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from serving.repository import GOLDEN

MANIFEST = "MAR-INF/MANIFEST.json"
SIGNATURE = "signature.json"
HANDLER = Path(__file__).with_name("handler")
"""The package of our handler."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time in a zip: equal contents give equal archives."""


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Write an archive atomically."""
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
    """Return all files of an archive. Raises `zipfile.BadZipFile`."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def stage(source: Path, destination: Path, version: int, *, batched: bool) -> None:
    """Copy an archive, adding its version, its golden sample, and `batched`, which are unknown at its export."""
    files = read_archive(source)
    manifest = json.loads(files[MANIFEST])
    manifest["model"]["modelVersion"] = str(version)
    changed = {MANIFEST: manifest, SIGNATURE: json.loads(files[SIGNATURE]) | {"batched": batched}}
    files |= {name: json.dumps(document, indent=2).encode() for name, document in changed.items()}
    if (sample := source.with_name(GOLDEN)).exists():
        files[GOLDEN] = sample.read_bytes()
    write_archive(destination, files)
