"""The plots of a document as PNG files, drawn by matplotlib, and the pictures of its cards as SVG files."""

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wrn_jax.report.render import strips
from wrn_jax.report.render.blocks import Document, Plot, Series
from wrn_jax.report.render.style import (
    MOST_MARKERS,
    THEMES,
    counts_whole,
    has_whole_heights,
    log_ticks,
    mark_labels,
    numbered_marks,
    plain,
    series_style,
)
from wrn_jax.runtime.drawing import plain_text


def save_plots(document: Document, directory: Path) -> list[Path]:
    """Draws each plot as DIRECTORY/NAME.png, readable at a width of 800 pixels, and each card's strips as DIRECTORY/NAME.svg;
    makes the directory if it is not there.

    Returns the files, in the order of the document. Raises OSError if a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    drawn = [_save_plot(plot, directory / f"{plot.name}.png") for plot in document.plots]
    for card in document.cards:
        if card.strips:
            drawn.append(directory / f"{card.name}.svg")
            drawn[-1].write_text(strips.to_svg(card, file=True), encoding="utf-8")
    return drawn


@plain_text(formulas=True)
def _save_plot(plot: Plot, path: Path) -> Path:
    from matplotlib.figure import Figure  # here, since it takes a quarter of a second that a page need not wait
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import ScaledTranslation

    theme = THEMES["light"]
    marks = numbered_marks(plot)
    texts = [f"{number}  {plain(text)}" for number, (_, text) in enumerate(marks, 1)]
    legend = [line for text in texts for line in textwrap.wrap(text, 110, subsequent_indent="    ")]
    names = [textwrap.fill(plain(series.name), 90) for series in plot.series]
    columns = max(1, min(4, 100 // (10 + max(map(len, names), default=0))))
    columns = math.ceil(len(names) / math.ceil(len(names) / columns)) if names else 1  # all columns of the same length
    rows = math.ceil(sum(1 + name.count("\n") for name in names) / columns)
    figure = Figure(figsize=(8, 4.3 + 0.25 * rows + 0.175 * len(legend)), layout="constrained", facecolor=theme["page"])
    axis = figure.subplots()
    lines = [_draw_series(axis, place, series, plot) for place, series in enumerate(plot.series)]
    for x, _ in marks:
        axis.axvline(x, color=theme["quiet"], linestyle=":", linewidth=1, zorder=1)
    for x, text in mark_labels(plot):
        above: Any = ("data", "axes fraction")
        axis.annotate(text, (x, 1.01), color=theme["quiet"], fontsize=9, xycoords=above, ha="center", va="bottom")
    axis.set_title(plain(plot.title), loc="left", fontsize=13, fontweight="bold", pad=20 if marks else 10, parse_math=False)
    axis.set_xlabel(plain(plot.x_label), parse_math=False)
    axis.set_ylabel(plain(plot.y_label), parse_math=False)
    if plot.log_x:
        axis.set_xscale("log")
        axis.set_xticks(log_ticks(plot), [f"{tick:g}" for tick in log_ticks(plot)])
        axis.minorticks_off()
    elif counts_whole(plot):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if plot.log_y:
        axis.set_yscale("log")
    if plot.rows:
        axis.set_yticks([])
    elif has_whole_heights(plot):
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(color=theme["grid"])
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    # Under the label of the axis: the names of the lines, and under them the texts of the marks.
    place: Any = (-40, -44 - 18 * rows)
    axis.annotate(
        "\n".join(legend), (0, 0), xycoords="axes fraction", xytext=place, textcoords="offset points", va="top", fontsize=9,
        color=theme["quiet"], linespacing=1.3, parse_math=False,
    )  # fmt: skip
    if lines:
        corner: Any = axis.transAxes + ScaledTranslation(-40 / 72, -36 / 72, figure.dpi_scale_trans)
        box = axis.legend(
            lines, names, ncols=columns, frameon=False, handlelength=4, loc="upper left", bbox_to_anchor=(0, 0),
            bbox_transform=corner, borderaxespad=0, borderpad=0,
        )  # fmt: skip
        for text in box.get_texts():
            text.set_parse_math(False)
    figure.savefig(path, dpi=160)
    with Image.open(path) as picture:  # a third of the size with a palette, to the eye the same
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    return path


def _draw_series(axis: Any, place: int, series: Series, plot: Plot) -> Any:
    style = series_style(place, len(series.x))
    colour = style.colours["light"]
    if plot.points and len(series.x) > 1:
        (line,) = axis.plot(series.x, series.y, color=colour, linewidth=1, linestyle="--", drawstyle="steps-post", zorder=1)
        return line
    if plot.points:
        ends = None
        if series.low is not None and series.high is not None:
            ends = np.abs(np.subtract([list(series.low), list(series.high)], series.y))
        return axis.errorbar(series.x, series.y, ends, color=colour, linestyle="", marker=style.matplotlib_marker, capsize=3)
    if series.low is not None and series.high is not None:
        axis.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    # A pixel of the page is three quarters of a point, and matplotlib counts dashes in line widths.
    dashes = (0, [length / style.width for length in style.dashes]) if style.dashes else "solid"
    (line,) = axis.plot(
        series.x, series.y, color=colour, linewidth=0.75 * style.width, linestyle=dashes, marker=style.matplotlib_marker,
        markersize=4.5, markevery=max(1, math.ceil(len(series.x) / MOST_MARKERS)),
        drawstyle="steps-pre" if plot.stepped else "default",
    )  # fmt: skip
    return line
