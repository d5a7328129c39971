"""The page's plots and mean pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from serving.compare.page.plots import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    **{"tensorflow": "#e69f00", "pytorch": "#0072b2"},
    **{"train": "#0072b2", "validation": "#56b4e9", "test": "#e69f00"},
}
"""Colours by the first word of a series' name."""
OTHERS = "#999999"
HEIGHT = 3.0


def lines(series: Mapping[str, Sequence[float]]) -> Markup:
    """Draw one line a series over its positions, from 1; every second line is dashed."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for place, (name, values) in enumerate(series.items()):
            style, marker = ("-", "--")[place % 2], "o" if len(values) <= 30 else None
            positions = range(1, len(values) + 1)
            axes.plot(positions, values, style, color=_colour(name), marker=marker, markersize=3, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return svg(draw, HEIGHT)


def bars(series: Mapping[str, Sequence[float]], names: Sequence[str]) -> Markup:
    """Draw groups of vertical bars, one group a name."""

    def draw(axes: Axes) -> None:
        width = 0.8 / len(series)
        for place, (name, values) in enumerate(series.items()):
            left = np.arange(len(values)) - 0.4 + place * width
            axes.bar(left, values, width, align="edge", color=_colour(name), label=name)
        axes.set_xticks(range(len(names)), names)

    return svg(draw, HEIGHT)


def picture(values: Sequence[float], shape: Sequence[int], label: str) -> Markup:
    """Return a flat picture [H, W, 1 or 3], values 0..1, as an inlined PNG."""
    from PIL import Image

    pixels = np.clip(np.array(values).reshape(shape) * 255, 0, 255).astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    content = base64.b64encode(stream.getvalue()).decode()
    return Markup('<img alt="{}" width="{}" height="{}" src="data:image/png;base64,{}">').format(
        label, shape[1] * 2, shape[0] * 2, content
    )


def shares(counts: Sequence[int]) -> list[float]:
    """Return counts as parts of their sum."""
    total = max(1, sum(counts))
    return [count / total for count in counts]


def _colour(name: str) -> str:
    return COLOURS.get(name.partition(",")[0], OTHERS)
