"""Small plots as inline SVG. Colours are the page's classes, so that they follow its light or dark mode."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 10, 22
"""Room for the axes."""

DOT = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.5"><title>{} {}: {:.4f}</title></circle>')
BAR = Markup(
    '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}, {}: {:.4g}</title></rect>'
)


def lines(series: Mapping[str, Sequence[float]], label: str, first: int = 1) -> Markup:
    """One line a series over its positions, which count from `first`.

    A name `<colour> <style>` such as `tensorflow dashed` gives the line's CSS classes.
    """
    values = [value for own in series.values() for value in own if math.isfinite(value)]
    if not values:
        return Markup("")
    low, high, grid = _axis(values)
    longest = max(len(own) for own in series.values())

    def x(position: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (position / (longest - 1) if longest > 1 else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [_grid(low, high, grid)]
    for name, own in series.items():
        points = [(x(i), y(value), value, i) for i, value in enumerate(own) if math.isfinite(value)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in points)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(name, path))
        if longest <= 30:
            parts += [DOT.format(name, px, py, name, i + first, value) for px, py, value, i in points]
    parts += [_text(x(0), HEIGHT - 6, str(first), "start" if longest > 1 else "middle")]
    if longest > 1:
        parts.append(_text(x(longest - 1), HEIGHT - 6, str(longest - 1 + first), "end"))
    return _svg(label, parts)


def bars(series: Mapping[str, Sequence[float]], names: Sequence[str], label: str) -> Markup:
    """Groups of upright bars from 0, one group a name."""
    low, high, grid = _axis([0.0, *(value for own in series.values() for value in own)])
    step = (WIDTH - LEFT - RIGHT) / len(names)
    width = step * 0.8 / len(series)
    parts = [_grid(low, high, grid)]
    for place, (name, own) in enumerate(series.items()):
        for position, value in enumerate(own):
            height = (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)
            x = LEFT + step * (position + 0.1) + width * place
            box = (x, HEIGHT - BOTTOM - height, max(0.5, width - 0.5), max(0.0, height))
            parts.append(BAR.format(name, *box, names[position], name, value))
    # Long names would run into each other: every bar tells its own.
    if all(len(name) <= 4 for name in names):
        parts += [
            _text(LEFT + step * (position + 0.5), HEIGHT - 6, name) for position, name in enumerate(names)
        ]
    return _svg(label, parts)


def picture(values: Sequence[float], shape: Sequence[int], label: str) -> Markup:
    """Values 0..1 of a picture [H, W, 1 or 3], flat, as an inlined PNG."""
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
    """Counts as parts of their sum."""
    total = max(1, sum(counts))
    return [count / total for count in counts]


def _axis(values: Sequence[float]) -> tuple[float, float, float]:
    """The values' range, made wider to whole steps of the grid, and the step.

    A step is the largest of 1, 2 and 5 times a power of ten that gives the grid four steps or more.
    """
    low, high = min(values), max(values)
    wanted = (high - low or abs(high) or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(factor * power for factor in (5, 2, 1) if factor * power <= wanted * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, max(last, first + 1) * step, step


def _grid(low: float, high: float, step: float) -> Markup:
    parts = Markup("")
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
        parts += Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            LEFT, WIDTH - RIGHT, y, y
        )
        parts += _text(LEFT - 5, y + 3.5, f"{round(value, 10):.4g}", "end")
    return parts


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, escape(text))


def _svg(label: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )
