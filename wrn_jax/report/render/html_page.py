"""A document as one HTML file that needs no network: `page.html` is its template.

plotly.js, which the `plotly` package brings, draws the plots and is written into the file once.
"""

import base64
import html
import math
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from wrn_jax.report.render import strips
from wrn_jax.report.render.blocks import Document, Plot, Series, Table
from wrn_jax.report.render.style import (
    COLOURS,
    MOST_MARKERS,
    THEMES,
    bold_as,
    counts_whole,
    has_whole_heights,
    log_ticks,
    mark_labels,
    numbered_marks,
    plain,
    series_style,
)

MOST_TICKS = 12  # of an axis that counts, one for each number
MOST_ROWS = 200  # of the table below a plot
LONG_CELL = 24  # characters, above which a column is kept from getting narrow
SENTENCE = 80  # characters, above which it is given more room, lest its rows get tall

_LONG_WORD = re.compile(r"\S{16,}")
_JOINT = re.compile(r"(?<=\w)([_/]|\.(?!\d))(?=\w)")
_UNBROKEN = re.compile(r"-&gt;|--\w+|\b\d+(\.\d+)?e-\d+\b")
_EMPTY = ("", "-", "–", "—", "n/a", "none")
_NUMBER = r"[<>≤≥≈~]?\s*[+\-−±]?\s*\d[\d.,]*([eE][+\-−]?\d+)?\s*(%|points?|s|ms|min|h|[kMG]B|[kMG]iB|[kMG])?"
_NUMBERS = rf"{_NUMBER}(\s*(±|\+-|to|/|,|;|…)\s*{_NUMBER})*"
_FIGURES = re.compile(rf"[(\[]?{_NUMBERS}(\s*[(\[]{_NUMBERS}[)\]])?[)\]]?")


def to_html(document: Document) -> str:
    """A document as the text of one HTML file, in UTF-8, that loads nothing; plotly.js makes 4.8 MB of it if it has plots."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wrn_jax.report", "render"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    filters: dict[str, Any] = {
        "kind": lambda block: type(block).__name__, "markup": to_markup, "plain": plain, "id": plot_id,
        "classes": column_classes, "data_table": data_table, "marks": numbered_marks,
        "svg": lambda card: Markup(strips.to_svg(card)),
        "base64": lambda content: base64.b64encode(content).decode(),
    }  # fmt: skip
    environment.filters.update(filters)
    figures, source = {plot_id(plot): plotly_figure(plot) for plot in document.plots}, ""
    if figures:
        import plotly.offline  # here, since documents without plots can do without

        source = Markup(plotly.offline.get_plotlyjs())
    themes = {theme: THEMES[theme] | {"lines": COLOURS[theme]} for theme in THEMES}
    return environment.get_template("page.html").render(
        document=document, themes=themes, figures=figures, plotly=source, look=Markup(strips.LOOK)
    )


def to_markup(text: str) -> Markup:
    """The text as HTML: `**bold**` and line breaks stay, all else is escaped.

    Long words may break where their parts meet; arrows, flags and small numbers may not, though browsers break after a minus.
    """
    escaped = _LONG_WORD.sub(lambda word: _JOINT.sub(r"\1<wbr>", word[0]), html.escape(text))
    escaped = _UNBROKEN.sub(r'<span class="unbroken">\g<0></span>', escaped)
    return Markup(bold_as(r"<strong>\1</strong>", escaped).replace("\n", "<br>"))


def plot_id(plot: Plot) -> str:
    """The name of a plot's element."""
    return f"plot-{urllib.parse.quote(plot.name, safe='')}"


def column_classes(table: Table) -> list[str]:
    """The style of each column: "number" is flush right, "words" does not get narrow, "sentences" still less.

    Raises ValueError for a row too long.
    """
    columns = [cells for _, *cells in zip(table.columns, *table.rows, strict=True)]
    return ["number" if is_numeric(cells) else _width(max(map(len, cells), default=0)) for cells in columns]


def _width(longest: int) -> str:
    return "sentences" if longest > SENTENCE else "words" if longest > LONG_CELL else ""


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds figures, perhaps with signs, units and intervals."""
    filled = [cell for cell in (plain(cell).strip() for cell in cells) if cell.lower() not in _EMPTY]
    return bool(filled) and all(_FIGURES.fullmatch(cell) for cell in filled)


def data_table(plot: Plot) -> Table:
    """The values of a plot, a row for each x; of too many, those at whole x or every so manieth."""
    places = sorted(set(plot.x))
    shown = [x for x in places if x.is_integer()] if len(places) > MOST_ROWS else places
    every = max(1, math.ceil(len(shown or places) / MOST_ROWS))
    shown = (shown or places)[::every]
    note = f"{len(shown)} of the plot's {len(places)} places." if len(shown) < len(places) else ""
    columns = [dict(zip(map(float, series.x), value_texts(series), strict=True)) for series in plot.series]
    rows = [[f"{x:.6g}", *[column.get(x, "") for column in columns]] for x in shown]
    return Table(f"Data of the plot: {plot.title}", [plot.x_label, *[series.name for series in plot.series]], rows, note=note)


def value_texts(series: Series) -> list[str]:
    """The values of a line as text, with the ends of its band; nothing for a gap."""
    texts = ["" if math.isnan(y) else f"{y:.5g}" for y in series.y]
    if series.low is None or series.high is None:
        return texts
    return [
        f"{text} ({low:.5g} to {high:.5g})" if text and not math.isnan(low + high) else text
        for text, low, high in zip(texts, series.low, series.high, strict=True)
    ]


def plotly_figure(plot: Plot) -> dict[str, Any]:
    """The plot as plotly's figure, apart from the colours: the `legendgroup` of a trace is the place of its line."""
    above = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "font": {"size": 11}}
    line = {"width": 1, "dash": "2px,3px", "color": "#808080"}
    x_label = _plotly_text(plot.x_label)
    vertical = {"y0": 0, "y1": 1, "yref": "paper", "layer": "below", "line": line}
    ticks = log_ticks(plot) if plot.log_x else []
    x_axis = {"title": {"text": x_label, "standoff": 8}, "automargin": True}
    y_axis = {"title": {"text": _plotly_text(plot.y_label), "standoff": 8}, "automargin": True}
    return {
        "data": [trace for place, series in enumerate(plot.series) for trace in _traces(place, series, plot)],
        "layout": {
            "xaxis": x_axis
            | {"unifiedhovertitle": {"text": f"<b>{x_label} %{{x}}</b>"}, "type": "log" if plot.log_x else "linear"}
            | ({"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]} if plot.log_x else {})
            | ({"dtick": 1} if counts_whole(plot) and np.ptp(plot.x) <= MOST_TICKS else {}),
            "yaxis": y_axis
            | {"type": "log" if plot.log_y else "linear"}
            | ({"dtick": 1} if has_whole_heights(plot) and np.ptp(plot.y) <= MOST_TICKS else {})
            | ({"showticklabels": False, "ticks": "", "showgrid": False} if plot.rows else {}),
            "shapes": [{"type": "line", "x0": x, "x1": x, **vertical} for x, _ in numbered_marks(plot)],
            "annotations": [{"x": x, "text": text, **above} for x, text in mark_labels(plot)],
            **({"hovermode": "closest"} if plot.points else {}),
        },
    }


def _plotly_text(text: str) -> str:
    """Text that plotly shows as it is, though it may look like markup."""
    return html.escape(plain(text), quote=False)


def _traces(place: int, series: Series, plot: Plot) -> list[dict[str, Any]]:
    """The band, if there is one, and the line over it."""
    style = series_style(place, len(series.x))
    x, y = _numbers(series.x), _numbers(series.y)
    dash = ",".join(f"{length}px" for length in style.dashes) or "solid"
    shared = {"type": "scatter", "name": _plotly_text(series.name), "legendgroup": str(place)}
    line: dict[str, Any] = shared | {
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "line": {"width": style.width, "dash": dash, "shape": "vh" if plot.stepped else "linear"},
        "marker": {"symbol": style.plotly_marker, "size": 6, "maxdisplayed": MOST_MARKERS},
        "hovertext": value_texts(series),
        "hoverinfo": "name" if plot.rows else "text+name",  # not a template, in which a name may have signs that mean something
    }
    if plot.points and len(x) > 1:
        return [line | {"mode": "lines", "line": {"width": 1.5, "dash": dash, "shape": "hv"}}]
    if plot.points:
        line |= {"mode": "markers", "marker": line["marker"] | {"size": 11}}
        if series.low is not None and series.high is not None:
            ends = zip(series.low, series.y, series.high, strict=True)
            down, up = zip(*((y - low, high - y) for low, y, high in ends), strict=True)
            line["error_y"] = {"type": "data", "symmetric": False, "array": _numbers(up), "arrayminus": _numbers(down)}
        return [line]
    if series.low is None or series.high is None:
        return [line]
    edge_x, edge_y = _outline(x, _numbers(series.low), _numbers(series.high))
    look = {"mode": "lines", "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [shared | look | {"x": edge_x, "y": edge_y}, line]


def _numbers(values: Sequence[float]) -> list[float | None]:
    """Numbers for JSON with seven digits, None for what is not finite."""
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values]


def _outline(x: Sequence[Any], low: Sequence[Any], high: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The closed curve round a band: there above, back below; one for each stretch without a gap."""
    stretches: list[list[int]] = [[]]
    for index in range(len(x)):
        if None in (x[index], low[index], high[index]):
            stretches.append([])
        else:
            stretches[-1].append(index)
    edge: list[tuple[Any, Any]] = []
    for stretch in filter(None, stretches):
        edge += [(None, None)] if edge else []
        edge += [(x[index], high[index]) for index in stretch] + [(x[index], low[index]) for index in stretch[::-1]]
    return [at for at, _ in edge], [value for _, value in edge]
