"""The report's plots, by Matplotlib, as inline SVG whose lines and letters take the page's colour."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from serving.compare.parts import PARTS
from serving.compare.report import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's own colour, which follows its light or dark mode."""
COLOURS = {
    "tf-serving": "#e69f00",
    "litert": "#56b4e9",
    "tfjs": "#009e73",
    "torchserve": "#d55e00",
    "onnxruntime": "#0072b2",
}
"""Okabe and Ito's, which the colour-blind can tell apart: https://jfly.uni-koeln.de/color/"""
SHADES = ("#999999", "#56b4e9", "#0072b2", "#e69f00", "#f0e442")
"""Of the parts of a request's time."""
OTHERS = ("#cc79a7", "#999999")
STYLES = ("-", "--", ":", "-.")
MOST_LINES, LONGEST_LABEL = 16, 32
WIDTH, HEIGHT = 6.0, 3.4
"""Inches."""
EXACT = 1e-9
"""Smaller differences are drawn as none."""


def all_of(report: Report) -> list[tuple[str, str, Markup]]:
    """Title, what it shows, and the plot, of each that the report has figures for."""
    target = report.settings["target_ms"]
    drawn = [
        (
            "Latency of one request at a time",
            "Each line is a row: how long the given share of its requests took at most. Further left is faster.",
            _latencies(report),
        ),
        (
            "Latency under load",
            f"Requests at random times at a rising rate. Where a line leaves {target:g} ms, the endpoint is saturated.",
            _load(report, target),
        ),
        (
            "Where a request's time goes",
            "The median's parts: the generator and a server without a model are measured beside it, as is the runtime "
            "in process; what both together take longer is the last part.",
            _parts(report),
        ),
        (
            "Goodput",
            f"The highest rate at which 99 % of the answers came within {target:g} ms, waiting included.",
            _bars(report, "requests a second", lambda row: row.goodput.value if row.goodput else None),
        ),
        (
            "CPU of the server",
            "CPU time of the server's processes for one request.",
            _bars(report, "us a request", lambda row: row.cpu_us.value if row.cpu_us else None),
        ),
        (
            "Score, size and speed",
            "Up and left is better; the line joins the rows that no other beats.",
            _frontier(report),
        ),
        (
            "Memory",
            "What the server's processes hold after the load.",
            _bars(report, "MiB", lambda row: (row.memory_loaded or row.memory_idle or 0) / 2**20 or None),
        ),
        (
            "Start",
            "From the start of a server's process to its being ready.",
            _bars(report, "seconds", lambda row: row.start_seconds),
        ),
        (
            "Training",
            "Loss by epoch: solid on the training rows, dashed on the validation rows.",
            _training(report),
        ),
        (
            "Parity",
            "Largest difference of any output between each two rows, on the same samples.",
            _parity(report),
        ),
    ]
    return [(title, text, plot) for title, text, plot in drawn if plot]


def colour(row: Row) -> str:
    """By target."""
    return COLOURS.get(row.target, OTHERS[0])


def _latencies(report: Report) -> Markup:
    rows = _distinct([row for row in report.working if row.quantiles])

    def draw(axes: Axes) -> None:
        for row in rows:
            axes.plot(row.quantiles, range(len(row.quantiles)), label=_label(row), **_line(rows, row))
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("share of requests, %")

    return svg(draw, legend=True, height=max(HEIGHT, 0.17 * len(rows))) if rows else Markup("")


def _load(report: Report, target: float) -> Markup:
    rows = _distinct([row for row in report.working if row.sweep])

    def draw(axes: Axes) -> None:
        for row in rows:
            offered = [point.offered for point in row.sweep]
            axes.plot(
                offered, [point.p99 for point in row.sweep], marker="o", label=_label(row), **_line(rows, row)
            )
        axes.axhline(target, color=INK, linewidth=0.8, linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("requests offered a second")
        axes.set_ylabel("p99, milliseconds")

    return svg(draw, legend=True, height=max(HEIGHT, 0.17 * len(rows))) if rows else Markup("")


def _bars(report: Report, unit: str, figure: Callable[[Row], float | None]) -> Markup:
    values = [(row, value) for row in report.working if (value := figure(row))]

    def draw(axes: Axes) -> None:
        places = np.arange(len(values))
        axes.barh(
            places, [value for _, value in values], color=[colour(row) for row, _ in values], height=0.7
        )
        axes.set_yticks(places, [_label(row) for row, _ in values])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        for place, (_, value) in enumerate(values):
            axes.text(
                value,
                place,
                f" {value:,.0f}" if value >= 10 else f" {value:.1f}",
                va="center",
                color=INK,
                fontsize=8,
            )
        axes.margins(x=0.12)

    return svg(draw, height=0.6 + 0.27 * len(values)) if values else Markup("")


def _parts(report: Report) -> Markup:
    rows = [row for row in report.working if row.parts]

    def draw(axes: Axes) -> None:
        left = np.zeros(len(rows))
        for name, shade in zip(PARTS, SHADES, strict=True):
            values = np.array([row.parts[name] for row in rows])
            axes.barh(np.arange(len(rows)), values, left=left, label=name, color=shade, height=0.7)
            left += values
        axes.set_yticks(np.arange(len(rows)), [_label(row) for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds")

    return svg(draw, legend=True, height=1.0 + 0.27 * len(rows)) if rows else Markup("")


def _training(report: Report) -> Markup:
    curves = [own for own in report.frameworks if own.epochs]

    def draw(axes: Axes) -> None:
        for own, shade in zip(curves, ("#e69f00", "#0072b2"), strict=False):
            epochs = range(1, len(own.epochs) + 1)
            for name, style in (("loss", "-"), ("validation_loss", "--")):
                losses = [epoch[name] for epoch in own.epochs]
                label = own.name if name == "loss" else None
                axes.plot(epochs, losses, style, color=shade, marker="o", markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        axes.set_xticks(range(1, 1 + max(len(own.epochs) for own in curves)))

    return svg(draw, legend=True) if curves else Markup("")


def _frontier(report: Report) -> Markup:
    points = [
        (row, row.p50.value, row.score)
        for row in report.working
        if row.score is not None and row.p50 and row.artifact_bytes
    ]

    def draw(axes: Axes) -> None:
        for row, speed, score in points:
            size = 20 + 80 * np.sqrt(row.artifact_bytes / 2**20)
            axes.scatter(speed, score, s=size, color=colour(row), alpha=0.7)
            axes.annotate(f"  {_label(row)}", (speed, score), color=INK, fontsize=7)
        best = undominated([(speed, score) for _, speed, score in points])
        axes.plot(*zip(*best, strict=True), color=INK, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("p50, milliseconds (area: size of the artifact)")
        axes.set_ylabel(report.score)
        axes.margins(0.15)

    return svg(draw) if len(points) > 1 else Markup("")


def undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (latency, score) those that no other beats in both, fastest first."""
    best: list[tuple[float, float]] = []
    for latency, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or score > best[-1][1]:
            best.append((latency, score))
    return best


def _parity(report: Report) -> Markup:
    names = [_label(row) for row in report.rows]
    known = [i for i, own in enumerate(report.parity) if any(value is not None for value in own)]
    if len(known) < 2:
        return Markup("")
    values = np.array([[report.parity[i][j] or 0.0 for j in known] for i in known], float)

    def draw(axes: Axes) -> None:
        axes.imshow(np.log10(np.maximum(values, EXACT)), cmap="viridis", vmin=-9, vmax=0)
        axes.set_xticks(range(len(known)), [names[i] for i in known], rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(known)), [names[i] for i in known], fontsize=7)
        axes.grid(visible=False)
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                text = "0" if value < EXACT else f"{value:.0e}".replace("e-0", "e-")
                axes.text(
                    x,
                    y,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="#ffffff" if value < 1e-3 else "#000000",
                )

    return svg(draw, height=1.6 + 0.3 * len(known))


def _label(row: Row) -> str:
    """The row's name, or its end where that is an address."""
    return row.name if len(row.name) <= LONGEST_LABEL else f"…{row.name[-LONGEST_LABEL:]}"


def _distinct(rows: list[Row]) -> list[Row]:
    """As many rows as lines can be told apart: of too many, each target's and variant's fastest protocol."""
    if len(rows) <= MOST_LINES:
        return rows
    rows = sorted(rows, key=lambda row: row.p50.value if row.p50 else float("inf"))
    return list({(row.target, row.variant): row for row in reversed(rows)}.values())


def _line(rows: Sequence[Row], row: Row) -> dict[str, Any]:
    own = [other.name for other in rows if other.target == row.target]
    return {
        "color": colour(row),
        "linestyle": STYLES[own.index(row.name) % len(STYLES)],
        "linewidth": 1.4,
        "markersize": 3,
    }


def svg(draw: Callable[[Axes], None], *, legend: bool = False, height: float = HEIGHT) -> Markup:
    """What `draw` draws, `height` inches high."""
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
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        axes.patch.set_alpha(0)
        figure.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        draw(axes)
        if legend:
            figure.legend(loc="outside right upper", frameon=False, fontsize=7)
        return _inline(figure)


def _inline(figure: Figure) -> Markup:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return Markup(text)  # noqa: S704 - Matplotlib has escaped the names in it
