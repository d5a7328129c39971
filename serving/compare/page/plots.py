"""The report's plots, by Matplotlib, as inline SVG whose lines and letters take the page's colour."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from serving.compare.parts import PARTS
from serving.compare.report import Framework, Report, Row

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


class Plot(NamedTuple):
    """A plot of `items`, each a row or a framework; without items it is left out."""

    title: str
    text: str
    """Its description."""
    items: Sequence[Any]
    draw: Callable[[Axes, Any], None]
    inches: float = 0.0
    """The height of an item, if they lie below each other."""


def all_of(report: Report) -> list[tuple[str, str, Markup]]:
    """Return title, description and drawing of each plot with figures."""
    rows, target = report.working, report.settings["target_ms"]
    known = [i for i, own in enumerate(report.parity) if any(value is not None for value in own)]
    known = known if len(known) > 1 else []
    plots = (
        Plot(
            "Latency of one request at a time",
            "Each line is a row: how long the given share of its requests took at most. Further left is faster.",
            _distinct([row for row in rows if row.quantiles]),
            _latencies,
        ),
        Plot(
            "Latency under load",
            f"Requests at random times at a rising rate. Where a line leaves {target:g} ms, the endpoint is saturated.",
            _distinct([row for row in rows if row.sweep]),
            partial(_load, target=target),
        ),
        Plot(
            "Where a request's time goes",
            "The median's parts: the generator and a server without a model are measured beside it, as is the runtime "
            "in process; what both together take longer is the last part.",
            [row for row in rows if row.parts],
            _parts,
            BAR,
        ),
        Plot(
            "Goodput",
            f"The highest rate at which 99 % of the answers came within {target:g} ms, waiting included.",
            [(row, row.goodput.value) for row in rows if row.goodput and row.goodput.value],
            partial(_bars, unit="requests a second"),
            BAR,
        ),
        Plot(
            "CPU of the server",
            "CPU time of the server's processes for one request.",
            [(row, row.cpu_us.value) for row in rows if row.cpu_us],
            partial(_bars, unit="us a request"),
            BAR,
        ),
        Plot(
            "Score, size and speed",
            "Up and left is better; the line joins the rows that no other beats. Area: size of the artifact.",
            [
                (row, row.p50.value)
                for row in rows
                if row.score is not None and row.p50 and row.artifact_bytes
            ],
            partial(_frontier, score=report.score),
        ),
        Plot(
            "Memory",
            "What the server's processes hold after the load.",
            [(row, held / 2**20) for row in rows if (held := row.memory_loaded or row.memory_idle)],
            partial(_bars, unit="MiB"),
            BAR,
        ),
        Plot(
            "Training",
            "Loss by epoch: solid on the training rows, dashed on the validation rows.",
            [own for own in report.frameworks if own.epochs],
            _training,
        ),
        Plot(
            "Parity",
            "Largest difference of any output between each two rows, on the same samples.",
            [(_label(report.rows[i].name), [report.parity[i][j] or 0.0 for j in known]) for i in known],
            _parity,
            min(CELL, 5.0 / max(len(known), 1)),
        ),
    )
    return [(plot.title, plot.text, _drawn(plot)) for plot in plots if plot.items]


def colour(row: Row) -> str:
    """Return the colour of the row's target."""
    return COLOURS.get(row.target, OTHER)


def _latencies(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        axes.plot(row.quantiles, range(len(row.quantiles)), label=_label(row.name), **_line(rows, row))
    _stretch(axes, "x")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("share of requests, %")


def _load(axes: Axes, rows: Sequence[Row], target: float) -> None:
    for row in rows:
        offered, p99 = zip(*((point.offered, point.p99) for point in row.sweep), strict=True)
        axes.plot(offered, p99, marker="o", label=_label(row.name), **_line(rows, row))
    axes.axhline(target, color=INK, linewidth=0.8, linestyle="--")
    _stretch(axes, "x", "y")
    axes.set_xlabel("requests offered a second")
    axes.set_ylabel("p99, milliseconds")


def _bars(axes: Axes, items: Sequence[tuple[Row, float]], unit: str) -> None:
    rows, values = zip(*items, strict=True)
    bars = axes.barh(range(len(rows)), values, color=[colour(row) for row in rows], height=0.7)
    axes.bar_label(bars, [f" {v:,.0f}" if v >= 10 else f" {v:.1f}" for v in values], color=INK, fontsize=8)
    axes.set_yticks(range(len(rows)), [_label(row.name) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.margins(x=0.12)


def _parts(axes: Axes, rows: Sequence[Row]) -> None:
    left = np.zeros(len(rows))
    for name, shade in zip(PARTS, SHADES, strict=True):
        values = np.array([row.parts[name] for row in rows])
        axes.barh(range(len(rows)), values, left=left, label=name, color=shade, height=0.7)
        left += values
    axes.set_yticks(range(len(rows)), [_label(row.name) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")


def _training(axes: Axes, curves: Sequence[Framework]) -> None:
    for own, shade in zip(curves, ("#e69f00", "#0072b2"), strict=False):
        epochs = range(1, len(own.epochs) + 1)
        for name, style in (("loss", "-"), ("validation_loss", "--")):
            losses = [epoch[name] for epoch in own.epochs]
            label = own.name if name == "loss" else None
            axes.plot(epochs, losses, style, color=shade, marker="o", markersize=3, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.set_xticks(range(1, 1 + max(len(own.epochs) for own in curves)))


def _frontier(axes: Axes, items: Sequence[tuple[Row, float]], score: str) -> None:
    largest = max(row.artifact_bytes for row, _ in items)
    drawn: dict[str, list[str]] = {}
    for row, speed in items:
        ways = drawn.setdefault(colour(row), [])
        # In a legend: names at the points would overlap, as the rows of a framework have one score.
        label = None if row.way in ways else _label(row.way)
        ways += [row.way] if label else []
        marker = MARKERS[ways.index(row.way) % len(MARKERS)]
        size = 20 + 100 * np.sqrt(row.artifact_bytes / largest)
        look: dict[str, Any] = {"color": colour(row), "marker": marker, "alpha": 0.7}
        axes.scatter(speed, row.score or 0.0, size, label=label, **look)
    best = undominated([(speed, row.score or 0.0) for row, speed in items])
    axes.plot(*zip(*best, strict=True), color=INK, linewidth=0.8)
    _stretch(axes, "x")
    axes.set_xlabel("p50, milliseconds")
    axes.set_ylabel(score)
    axes.margins(0.15)


def undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (latency, score) that no other beats in both, fastest first."""
    best: list[tuple[float, float]] = []
    for latency, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or score > best[-1][1]:
            best.append((latency, score))
    return best


def _parity(axes: Axes, items: Sequence[tuple[str, list[float]]]) -> None:
    names, rows = zip(*items, strict=True)
    axes.imshow(np.log10(np.maximum(rows, EXACT)), cmap="viridis", vmin=-9, vmax=0)
    numbers = range(1, len(names) + 1)
    fontsize = min(7.0, 200 / len(names))
    axes.set_xticks(range(len(names)), [str(number) for number in numbers], fontsize=fontsize)
    axes.set_yticks(range(len(names)), map("{}  {}".format, names, numbers), fontsize=fontsize)
    axes.grid(visible=False)
    for (y, x), value in np.ndenumerate(rows if len(names) <= MOST_LINES else []):
        text = "0" if value < EXACT else f"{value:.0e}".replace("e-0", "e-")
        ink = "#ffffff" if value < 1e-3 else "#000000"
        axes.text(x, y, text, ha="center", va="center", fontsize=6, color=ink)


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


def _drawn(plot: Plot) -> Markup:
    height = 1.0 + plot.inches * len(plot.items) if plot.inches else HEIGHT
    return svg(lambda axes: plot.draw(axes, plot.items), height)


def svg(draw: Callable[[Axes], None], height: float) -> Markup:
    """Return a drawing of `draw` as SVG, `height` inches or the legend high."""
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
