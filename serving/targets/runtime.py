"""The description of a target's runtime and server."""

from __future__ import annotations

from serving import targets
from serving.repository import ManifestError, read_manifest, version_dir
from serving.settings import Settings

ORIGINAL = "tensorflow/"
"""The prefix of TensorFlow Serving's own image."""


def runs(settings: Settings, target: str, version: int | None, image: str = "") -> str:
    """Return, for example, "PyTorch (torch.export) in TorchServe"; `image` is the image of the target's container."""
    server = "TensorFlow Serving" if image.startswith(ORIGINAL) else targets.load(target).server
    if version is None:
        return f"nothing yet, in {server}"
    try:
        manifest = read_manifest(version_dir(settings.repository, target, settings.model, version))
        runtime = manifest.runtime + (f", converted by {manifest.converter}," if manifest.converter else "")
    except ManifestError:
        runtime = ""
    return f"{runtime or 'what its version does not name'} in {server}"
