"""The report's plots, by Matplotlib, as inline SVG whose lines and letters take the page's colour."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from serving.compare.parts import PARTS
from serving.compare.report import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""Replaced by the page's colour, which follows its light or dark mode."""
COLOURS = {
    "tf-serving": "#e69f00",
    "litert": "#56b4e9",
    "tfjs": "#009e73",
    "torchserve": "#d55e00",
    "onnxruntime": "#0072b2",
}
"""Okabe and Ito's colours for the colour-blind: https://jfly.uni-koeln.de/color/"""
SHADES = ("#999999", "#56b4e9", "#0072b2", "#e69f00", "#f0e442")
"""The colours of the parts of a request's time."""
OTHER = "#cc79a7"
STYLES, MARKERS = ("-", "--", ":", "-."), "osD^vP"
"""The styles of rows of one colour."""
MOST_LINES, LONGEST_LABEL = 16, 32
WIDTH, HEIGHT = 6.0, 3.4
BAR, CELL, LEGEND = 0.27, 0.36, 0.17
"""Inches; these for each bar, each row of the parity, and each line of a legend."""
EXACT = 1e-9
"""Smaller differences are drawn as none."""


def latencies(report: Report) -> Markup:
    """Draw the shares of one request's latencies at a time."""

    def draw(axes: Axes) -> None:
        for row in rows:
            axes.plot(row.quantiles, range(len(row.quantiles)), label=_label(row.name), **_line(rows, row))
        _stretch(axes, "x")
        axes.set(xlabel="milliseconds", ylabel="share of requests, %")

    rows = _distinct([row for row in report.working if row.quantiles])
    return svg(draw, HEIGHT, rows)


def load(report: Report) -> Markup:
    """Draw the 99th percentile of the latency by the offered rate."""

    def draw(axes: Axes) -> None:
        for row in rows:
            offered, p99 = zip(*((point.offered, point.p99) for point in row.sweep), strict=True)
            axes.plot(offered, p99, marker="o", label=_label(row.name), **_line(rows, row))
        axes.axhline(report.settings["target_ms"], color=INK, linewidth=0.8, linestyle="--")
        _stretch(axes, "x", "y")
        axes.set(xlabel="requests offered a second", ylabel="p99, milliseconds")

    rows = _distinct([row for row in report.working if row.sweep])
    return svg(draw, HEIGHT, rows)


def bars(report: Report, name: str, unit: str, scale: float = 1.0) -> Markup:
    """Draw a figure of each row, divided by `scale`."""

    def draw(axes: Axes) -> None:
        places = range(len(found))
        values = list(found.values())
        drawn = axes.barh(places, values, color=[shades[name] for name in found], height=0.7)
        labels = [f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in values]
        axes.bar_label(drawn, labels, padding=3, color=INK, fontsize=8)
        axes.set_yticks(places, map(_label, found))
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.margins(x=0.12, y=0.01)

    figures = {row.name: getattr(row, name) for row in report.working}
    plain = {name: getattr(figure, "value", figure) for name, figure in figures.items()}
    found = {name: value / scale for name, value in plain.items() if value}
    shades = {row.name: colour(row) for row in report.working}
    return svg(draw, 1.0 + BAR * len(found), found)


def parts(report: Report) -> Markup:
    """Draw the parts of each row's median."""

    def draw(axes: Axes) -> None:
        left, places = np.zeros(len(rows)), range(len(rows))
        for name, shade in zip(PARTS, SHADES, strict=True):
            values = np.array([row.parts[name] for row in rows])
            axes.barh(places, values, left=left, label=name, color=shade, height=0.7)
            left += values
        axes.set_yticks(places, [_label(row.name) for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds")
        axes.margins(y=0.01)

    rows = [row for row in report.working if row.parts]
    return svg(draw, 1.0 + BAR * len(rows), rows)


def training(report: Report) -> Markup:
    """Draw the losses by epoch of each framework."""

    def draw(axes: Axes) -> None:
        for own, shade in zip(curves, ("#e69f00", "#0072b2", OTHER), strict=False):
            epochs = range(1, len(own.epochs) + 1)
            for name, style in (("loss", "-"), ("validation_loss", "--")):
                losses = [epoch[name] for epoch in own.epochs]
                label = own.name if name == "loss" else None
                axes.plot(epochs, losses, style, color=shade, marker="o", markersize=3, label=label)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.set_xticks(range(1, 1 + max(len(own.epochs) for own in curves)))

    curves = [own for own in report.frameworks if own.epochs]
    return svg(draw, HEIGHT, curves)


def frontier(report: Report) -> Markup:
    """Draw score, speed and size of each row, and the line of those that no other beats."""

    def draw(axes: Axes) -> None:
        points = [(row.p50.value if row.p50 else 0.0, row.score or 0.0) for row in rows]
        largest, ways = max(row.artifact_bytes for row in rows), [row.way for row in rows]
        # In a legend: names at the points would overlap, as the rows of a framework have one score.
        for place, way in enumerate(dict.fromkeys(ways)):
            own = [number for number, other in enumerate(ways) if other == way]
            row, (speeds, scores) = rows[own[0]], zip(*(points[number] for number in own), strict=True)
            size = 20 + 100 * np.sqrt(row.artifact_bytes / largest)
            look: dict[str, Any] = {"color": colour(row), "marker": MARKERS[place % len(MARKERS)]}
            axes.scatter(speeds, scores, size, label=_label(way), alpha=0.7, **look)
        best: list[tuple[float, float]] = []
        for point in sorted(points, key=lambda point: (point[0], -point[1])):
            best += [point] if not best or point[1] > best[-1][1] else []
        axes.plot(*zip(*best, strict=True), color=INK, linewidth=0.8)
        _stretch(axes, "x")
        axes.set(xlabel="p50, milliseconds", ylabel=report.score)
        axes.margins(0.15)

    rows = [row for row in report.working if row.score is not None and row.p50 and row.artifact_bytes]
    return svg(draw, HEIGHT, rows)


def parity(report: Report) -> Markup:
    """Draw the differences between each two rows with answers."""

    def draw(axes: Axes) -> None:
        axes.imshow(np.log10(np.maximum(values, EXACT)), cmap="viridis", vmin=-9, vmax=0)
        fontsize = min(7.0, 200 / len(names))
        axes.set_xticks(range(len(names)), map(str, range(1, len(names) + 1)), fontsize=fontsize)
        axes.set_yticks(
            range(len(names)), [f"{name}  {i}" for i, name in enumerate(names, 1)], fontsize=fontsize
        )
        axes.grid(visible=False)
        for (y, x), value in np.ndenumerate(values if len(names) <= MOST_LINES else []):
            text = "-" if np.isnan(value) else "0" if value < EXACT else f"{value:.0e}".replace("e-0", "e-")
            ink = "#ffffff" if value < 1e-3 else "#000000"
            axes.text(x, y, text, ha="center", va="center", fontsize=6, color=ink)

    known = [i for i, own in enumerate(report.parity) if any(value is not None for value in own)]
    names = [_label(report.rows[i].name) for i in known]
    values = np.array([[report.parity[i][j] for j in known] for i in known], float)
    return svg(draw, 1.0 + min(CELL, 5.0 / max(len(known), 1)) * len(known), known[1:])


def colour(row: Row) -> str:
    """Return the colour of the row's target."""
    return COLOURS.get(row.target, OTHER)


def _stretch(axes: Axes, *names: str) -> None:
    """Make axes logarithmic, with the labels 1, 2, 5, 10, 20."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _label(name: str) -> str:
    """Return a row's name, or the end of a long one."""
    return name if len(name) <= LONGEST_LABEL else f"…{name[-LONGEST_LABEL:]}"


def _distinct(rows: list[Row]) -> list[Row]:
    """Return rows with distinct lines: of too many, the fastest protocol of each target and variant."""
    if len(rows) <= MOST_LINES:
        return rows
    rows = sorted(rows, key=lambda row: row.p50.value if row.p50 else float("inf"))
    return list({(row.target, row.variant): row for row in reversed(rows)}.values())


def _line(rows: Sequence[Row], row: Row) -> dict[str, Any]:
    own = [other.name for other in rows if colour(other) == colour(row)]
    return {
        "color": colour(row),
        "linestyle": STYLES[own.index(row.name) % len(STYLES)],
        "linewidth": 1.4,
        "markersize": 3,
    }


def svg(draw: Callable[[Axes], None], height: float, items: Collection[Any] = (None,)) -> Markup:
    """Return a drawing of `draw` as SVG, `height` inches or the legend high; empty if there are no `items` in it."""
    if not items:
        return Markup()
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        **{f"{what}.color": INK for what in ("text", "xtick", "ytick")},
        **{"axes.edgecolor": INK, "axes.labelcolor": INK},
        **{"axes.grid": True, "grid.alpha": 0.25, "grid.color": INK},
        # Letters stay letters, and the same figures give the same file.
        **{"svg.fonttype": "none", "svg.hashsalt": "tandem", "font.size": 9, "font.family": "sans-serif"},
    }
    with matplotlib.rc_context(style):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        axes.patch.set_alpha(0)
        figure.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        draw(axes)
        _, labels = axes.get_legend_handles_labels()
        if labels:
            figure.legend(loc="outside right upper", frameon=False, fontsize=7)
        figure.set_size_inches(WIDTH, max(height, LEGEND * len(labels)))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return Markup(text)  # noqa: S704 - Matplotlib has escaped the names in it
