"""The names of torch_model.py for those of the checkpoint."""

from __future__ import annotations

LAYERS = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "top.conv", "_bn1": "top.norm"}
IN_A_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def renamed(name: str) -> str | None:
    """`_blocks.3._bn0.weight` -> `block_3.expand.norm.weight`; None for ImageNet's own head."""
    *path, layer, variable = name.split(".")
    if layer == "_fc":
        return None
    return f"block_{path[1]}.{IN_A_BLOCK[layer]}.{variable}" if path else f"{LAYERS[layer]}.{variable}"
