"""A document as one HTML file that needs no network, and its plots as PNG files.

plotly.js, which the `plotly` package brings, draws the plots in the page and is written into it once; matplotlib draws the
PNGs. Both ask `series_style`, so that a line looks the same in both. Colours follow Okabe and Ito ("Color Universal Design",
2008), made darker or lighter until each stands out from the page; dashes and markers tell the lines apart without them.
"""

import dataclasses
import html
import json
import math
import re
import textwrap
import urllib.parse
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from wrn_jax.report.render.blocks import Block, Bullets, Document, Plot, Section, Series, Table, Text

MOST_ROWS = 200  # of the table below a plot
LONG_TABLE = 30  # rows, above which a table scrolls in its own box
LONG_CELL = 24  # characters, above which a column is kept from getting narrow
MOST_MARKERS = 30  # on a line
DENSE = 500  # points, above which a line is thin and without dashes, which nobody could see

THEMES = {
    "light": {
        "page": "#ffffff", "raised": "#f4f5f7", "text": "#1c2127", "quiet": "#57606b", "rule": "#d3d8de", "grid": "#e3e6ea",
        "link": "#0b5cad", "warning": "#9a4200",
    },
    "dark": {
        "page": "#14171b", "raised": "#1e2329", "text": "#e4e7eb", "quiet": "#a9b2bc", "rule": "#3a424b", "grid": "#2b3138",
        "link": "#7db8f5", "warning": "#f2a65a",
    },
}  # fmt: skip
COLOURS = {
    "light": ("#0072b2", "#d55e00", "#00875f", "#aa4a8c", "#4d545c", "#8f6b00", "#2b8fc4", "#8a1f4d"),
    "dark": ("#56b4e9", "#ff8c4d", "#2ec49a", "#e295c8", "#c9ced4", "#e6cf55", "#93a7ff", "#f0718f"),
}
# Pixels drawn and left out in turn; the marker as plotly calls it, as matplotlib does, and as an SVG path round 0, 0.
PATTERNS = (
    ((), "circle", "o", "M-3.8 0a3.8 3.8 0 1 0 7.6 0a3.8 3.8 0 1 0-7.6 0z"),
    ((9, 4), "square", "s", "M-3.5-3.5h7v7h-7z"),
    ((2, 3), "triangle-up", "^", "M0-4.5 4.3 3.2h-8.6z"),
    ((9, 3, 2, 3), "diamond", "D", "M0-4.8 4.8 0 0 4.8-4.8 0z"),
    ((16, 4), "x", "X", "M0-2 2.5-4.5 4.5-2.5 2 0 4.5 2.5 2.5 4.5 0 2-2.5 4.5-4.5 2.5-2 0-4.5-2.5-2.5-4.5z"),
    ((5, 2), "cross", "P", "M-1.4-4.6h2.8v3.2h3.2v2.8h-3.2v3.2h-2.8v-3.2h-3.2v-2.8h3.2z"),
    ((16, 3, 2, 3), "pentagon", "p", "M0-4.7 4.5-1.4 2.8 3.8h-5.6L-4.5-1.4z"),
    ((2, 3, 5, 3), "star", "*", "M0-5.2 1.5-1.8 5-1.6 2.3.7 3.1 4.3 0 2.3-3.1 4.3-2.3.7-5-1.6-1.5-1.8z"),
)


@dataclasses.dataclass(frozen=True)
class Style:
    """How a line looks.

    Attributes:
      colours: by theme.
      width: pixels.
      dashes: pixels drawn and left out in turn; empty for an unbroken line.
      plotly_marker, matplotlib_marker: the marker as these call it.
      outline: the marker as an SVG path round 0, 0.
    """

    colours: dict[str, str]
    width: float
    dashes: tuple[int, ...]
    plotly_marker: str
    matplotlib_marker: str
    outline: str


def series_style(place: int, points: int = 0) -> Style:
    """The style of the line at a place (from 0) of a plot, given its number of points; the first 64 differ from each other."""
    colours = {theme: colours[place % len(colours)] for theme, colours in COLOURS.items()}
    dashes, *markers = PATTERNS[(place + place // len(PATTERNS)) % len(PATTERNS)]
    return Style(colours, 1.0, (), *markers) if points > DENSE else Style(colours, 2.0, dashes, *markers)


# Text

_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*", re.DOTALL)
_LONG_WORD = re.compile(r"\S{16,}")
_JOINT = re.compile(r"(?<=\w)([._/])(?=\w)")
_UNBROKEN = re.compile(r"-&gt;|--\w+|\b\d+(\.\d+)?e-\d+\b")
_EMPTY = ("", "-", "–", "—", "n/a", "none")
_NUMBER = r"[<>≤≥≈~]?\s*[+\-−±]?\s*\d[\d.,]*([eE][+\-−]?\d+)?\s*(%|points?|s|ms|min|h|[kMG]B|[kMG]iB|[kMG])?"
_NUMBERS = rf"{_NUMBER}(\s*(±|\+-|to|/|,|;|…)\s*{_NUMBER})*"
_FIGURES = re.compile(rf"[(\[]?{_NUMBERS}(\s*[(\[]{_NUMBERS}[)\]])?[)\]]?")


def plain(text: str) -> str:
    """The text without the signs for bold."""
    return _BOLD.sub(r"\1", text)


def to_markup(text: str) -> str:
    """The text as HTML: `**bold**` and line breaks stay, all else is escaped.

    Long words may break where their parts meet; arrows, flags and small numbers may not, though browsers break after a minus.
    """
    escaped = _LONG_WORD.sub(lambda word: _JOINT.sub(r"\1<wbr>", word[0]), html.escape(text))
    escaped = _UNBROKEN.sub(r'<span class="one">\g<0></span>', escaped)
    return _BOLD.sub(r"<strong>\1</strong>", escaped).replace("\n", "<br>")


def is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds figures, perhaps with signs, units and intervals, and so is set flush right."""
    filled = [cell for cell in (plain(cell).strip() for cell in cells) if cell.lower() not in _EMPTY]
    return bool(filled) and all(_FIGURES.fullmatch(cell) for cell in filled)


def format_number(value: float, digits: int = 6) -> str:
    """A number of a plot as text; nothing for a gap."""
    return "" if math.isnan(value) else f"{value:.{digits}g}"


# The page

MarksShown = set[tuple[tuple[float, str], ...]]
"""The marks whose texts are on the page already, open."""


def to_html(document: Document) -> str:
    """Writes a document as one HTML file that loads nothing.

    Returns:
      The file's text, to be written as UTF-8. plotly.js makes 4.8 MB of it where the document has plots.
    """
    plots = [block for section in document.sections for block in section.blocks if isinstance(block, Plot)]
    marks_shown: MarksShown = set()
    sections = [_section(number, section, marks_shown) for number, section in enumerate(document.sections, 1)]
    contents = [
        f'<li><a href="#section-{number}">{html.escape(plain(section.heading))}</a></li>'
        for number, section in enumerate(document.sections, 1)
    ]
    return _join(
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        # Not even a library's mistake, or markup in a name, can make the page load or send anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data: blob:\">",
        f"<title>{html.escape(plain(document.title))}</title>",
        f"<style>\n{_theme_rules()}{_resource('page.css')}</style>",
        "</head>",
        "<body>",
        '<a class="skip" href="#content">Skip to the content</a>',
        '<nav aria-label="Contents"><p>Contents</p><ol>',
        *contents,
        "</ol></nav>",
        '<main id="content" tabindex="-1">',
        f"<h1>{to_markup(document.title)}</h1>",
        *sections,
        "</main>",
        _scripts(plots),
        "</body>",
        "</html>",
        "",
    )


def _join(*parts: str) -> str:
    return "\n".join(parts)


def _resource(name: str) -> str:
    return resources.files("wrn_jax.report.render").joinpath(name).read_text(encoding="utf-8")


def _theme_rules() -> str:
    """The colours as CSS variables; paper is light whatever the screen is."""
    rules = {}
    for theme, colours in THEMES.items():
        named = {**colours, **{f"line-{place}": colour for place, colour in enumerate(COLOURS[theme])}}
        rules[theme] = " ".join(f"--{name}: {colour};" for name, colour in named.items())
    light, dark = rules["light"], rules["dark"]
    return f":root {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"


def _scripts(plots: Sequence[Plot]) -> str:
    """plotly.js, the figures, and what draws them; without plots only the little that tables need."""
    scripts = [f"<script>\n{_resource('page.js')}</script>"]
    if plots:
        import plotly.offline  # here, since documents without plots can do without

        figures = {_plot_id(plot): plotly_figure(plot) for plot in plots}
        # Only the sign < could end a script early; there is none, since texts are escaped for plotly and names for addresses.
        themes = {theme: THEMES[theme] | {"lines": COLOURS[theme]} for theme in THEMES}
        data = json.dumps({"themes": themes, "figures": figures}, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        scripts.insert(0, f'<script type="application/json" id="figures">{data}</script>')
        scripts.insert(0, f"<script>\n{plotly.offline.get_plotlyjs()}\n</script>")
    return _join(*scripts)


def _section(number: int, section: Section, marks_shown: MarksShown) -> str:
    return _join(
        f'<section id="section-{number}" aria-labelledby="heading-{number}">',
        f'<h2 id="heading-{number}">{to_markup(section.heading)}</h2>',
        *[_block(block, marks_shown) for block in section.blocks],
        "</section>",
    )


def _block(block: Block, marks_shown: MarksShown) -> str:
    match block:
        case Text(text, "plain"):
            return f"<p>{to_markup(text)}</p>"
        case Text(text, kind):
            sign = {"note": "i", "warning": "!"}[kind]
            label = f'<p class="kind"><span aria-hidden="true">{sign}</span>{kind.capitalize()}</p>'
            return f'<div class="{kind}" role="note">{label}<p>{to_markup(text)}</p></div>'
        case Bullets(items):
            return _join("<ul>", *[f"<li>{to_markup(item)}</li>" for item in items], "</ul>")
        case Table():
            return _table(block)
        case Plot():
            return _figure(block, marks_shown)


def _table(table: Table) -> str:
    columns = [[row[column] for row in table.rows] for column in range(len(table.columns))]
    kinds = [' class="number"' if is_numeric(cells) else "" for cells in columns]
    widths = [f' style="min-width: {width}"' if width else "" for width in _least_widths(columns)]
    heads = [
        f'<th scope="col"{kind}{width}>{to_markup(head)}</th>'
        for kind, width, head in zip(kinds, widths, table.columns, strict=True)
    ]
    rows = []
    for index, row in enumerate(table.rows):
        sign, marked = "", ""
        if index in table.marked:
            sign, marked = (
                '<span class="sign" aria-hidden="true">▸</span><span class="hidden">Marked: </span>',
                ' class="marked"',
            )
        first, *others = [to_markup(cell) for cell in row]
        cells = [f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], others, strict=True)]
        rows.append(f'<tr{marked}><th scope="row"{kinds[0]}>{sign}{first}</th>{"".join(cells)}</tr>')
    return _join(
        f'<div class="table{" long" if len(table.rows) > LONG_TABLE else ""}">',
        '<p class="hint" hidden>Wider than the screen: scroll the table sideways</p>',
        f'<div class="box" role="region" tabindex="0" aria-label="Table: {html.escape(plain(table.caption))}">',
        "<table>",
        f"<caption><span>{to_markup(table.caption)}</span></caption>",
        f"<thead><tr>{''.join(heads)}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody>",
        "</table>",
        "</div>",
        *([f'<p class="about">{to_markup(table.note)}</p>'] if table.note else []),
        "</div>",
    )


def _least_widths(columns: Sequence[Sequence[str]]) -> list[str]:
    """How narrow each column may get, in CSS: long texts share the room there is before they make the table scroll."""
    lengths = [max(map(len, cells), default=0) for cells in columns]
    long = sum(length > LONG_CELL for length in lengths[1:])
    rooms = [f"min({length / 8:.0f}rem, max(11rem, {75 // max(1, long)}cqi), 24rem)" for length in lengths]
    return ["", *[room if length > LONG_CELL else "" for room, length in zip(rooms[1:], lengths[1:], strict=True)]]


def _plot_id(plot: Plot) -> str:
    return f"plot-{urllib.parse.quote(plot.name, safe='')}"


def _figure(plot: Plot, marks_shown: MarksShown) -> str:
    name = html.escape(_plot_id(plot))
    title = html.escape(plain(plot.title))
    return _join(
        f'<figure aria-labelledby="{name}-title">',
        f'<figcaption><h3 id="{name}-title">{to_markup(plot.title)}</h3>',
        f'<p id="{name}-about">{to_markup(plot.description)}</p></figcaption>',
        f'<div class="plot"><div class="canvas" id="{name}" role="group" tabindex="0" aria-label="Interactive plot: {title}"',
        f' aria-describedby="{name}-about {name}-keys"></div>',
        f'<p class="keys" id="{name}-keys">Left and right arrow: values point by point. + and −: zoom. 0: everything.</p>',
        "</div>",
        "<noscript><p>The plot needs JavaScript; the table below it has the same data.</p></noscript>",
        _legend(plot),
        '<p class="hidden" aria-live="polite"></p>',
        _mark_list(plot, marks_shown),
        f'<details class="data"><summary>Data as a table<span class="hidden">: {title}</span></summary>',
        _table(data_table(plot)),
        "</details>",
        "</figure>",
    )


def _legend(plot: Plot) -> str:
    """The names of the lines, with their values where the reader points; where the last ones are, to begin with."""
    last = max((float(x) for series in plot.series for x in series.x), default=math.nan)
    items = []
    for place, series in enumerate(plot.series):
        value = html.escape(_texts(series, 5).get(last, "") or "–")
        items += [
            f'<li><button type="button" aria-pressed="true" data-place="{place}" title="Show or hide this line">',
            _swatch(place, len(series.x)),
            f"<span>{to_markup(plain(series.name))}</span><output>{value}</output></button></li>",
        ]
    where = f"{to_markup(plain(plot.x_label))} <span>{format_number(last)}</span>"
    short = "" if any(series.low is not None for series in plot.series) else " short"
    return _join(f'<div class="legend{short}"><p><strong>{where}</strong> <em></em></p><ul>', *items, "</ul></div>")


def _swatch(place: int, points: int) -> str:
    """A piece of a line with its marker."""
    style = series_style(place, points)
    dashes = " ".join(map(str, style.dashes))
    colour = f"var(--line-{place % len(COLOURS['light'])})"
    return (
        f'<svg width="44" height="12" viewBox="-22 -6 44 12" aria-hidden="true" style="color: {colour}">'
        f'<path d="M-22 0H22" stroke="currentColor" stroke-width="{style.width:g}" stroke-dasharray="{dashes}"/>'
        f'<path d="{style.outline}" fill="currentColor"/></svg>'
    )


def _mark_list(plot: Plot, marks_shown: MarksShown) -> str:
    """What the numbers above the plot mean; open where it is new, and closed in later plots with the same marks."""
    marks = numbered_marks(plot)
    if not marks:
        return ""
    opened = "" if tuple(plot.marks) in marks_shown else " open"
    marks_shown.add(tuple(plot.marks))
    return _join(
        f'<details class="marks"{opened}><summary>Vertical lines in the plot: {len(marks)}</summary><ol>',
        *[
            f'<li data-x="{x!r}"><b>{number}</b> <span>{to_markup(text)}</span></li>'
            for number, (x, text) in enumerate(marks, 1)
        ],
        "</ol></details>",
    )


# The plots as data


def data_table(plot: Plot) -> Table:
    """The values of a plot, a row for each x; of too many, those at whole x or every so manieth."""
    places = sorted({float(x) for series in plot.series for x in series.x})
    shown = [x for x in places if x.is_integer()] if len(places) > MOST_ROWS else places
    every = max(1, math.ceil(len(shown or places) / MOST_ROWS))
    shown = (shown or places)[::every]
    note = f"{len(shown)} of the plot's {len(places)} places." if len(shown) < len(places) else ""
    columns = [_texts(series) for series in plot.series]
    rows = [[format_number(x), *[column.get(x, "") for column in columns]] for x in shown]
    return Table(f"Data of the plot: {plot.title}", [plot.x_label, *[series.name for series in plot.series]], rows, note=note)


def _texts(series: Series, digits: int = 6) -> dict[float, str]:
    """The values of a line as text, by their x."""
    cells = [format_number(float(y), digits) for y in series.y]
    if series.low is not None and series.high is not None:
        for index, (low, high) in enumerate(zip(series.low, series.high, strict=True)):
            if cells[index] and not math.isnan(low) and not math.isnan(high):
                cells[index] += f" ({format_number(float(low), digits)} to {format_number(float(high), digits)})"
    return {float(x): cell for x, cell in zip(series.x, cells, strict=True)}


def numbered_marks(plot: Plot) -> list[tuple[float, str]]:
    """The marks in their order, those at one x together: (x, text with the x in front)."""
    texts: dict[float, list[str]] = {}
    for x, text in sorted(plot.marks, key=lambda mark: mark[0]):
        if text not in texts.setdefault(float(x), []):
            texts[float(x)].append(text)
    return [(x, f"{plot.x_label} {round(x, 2):g}: {'; '.join(found)}") for x, found in texts.items()]


def mark_labels(positions: Sequence[float], span: float) -> list[tuple[float, str]]:
    """The numbers above vertical lines; lines so near that theirs would overlap share one, such as 3–5.

    Args:
      positions: where the lines are, ascending; they are numbered from 1.
      span: the length of the axis, which may be as narrow as 280 pixels.

    Returns:
      (position, text) of each label.
    """

    def label(first: int, last: int) -> tuple[float, str, float]:
        text = str(first) if first == last else f"{first}–{last}"
        return (positions[first - 1] + positions[last - 1]) / 2, text, (7 * len(text) + 4) / 280 * span

    groups: list[tuple[int, int]] = []
    for number in range(1, len(positions) + 1):
        groups.append((number, number))
        while len(groups) > 1:
            (left, _, left_width), (right, _, right_width) = label(*groups[-2]), label(*groups[-1])
            if right - left >= (left_width + right_width) / 2:
                break
            groups[-2:] = [(groups[-2][0], groups[-1][1])]
    return [label(*group)[:2] for group in groups]


def _span(plot: Plot) -> float:
    """The length of the x axis."""
    places = [float(x) for series in plot.series for x in series.x] + [float(x) for x, _ in plot.marks]
    return (max(places) - min(places)) if places else 0.0


def plotly_figure(plot: Plot) -> dict[str, Any]:
    """The plot as plotly's figure, apart from colours: each trace says in `meta` at which place its line is."""
    traces = []
    for place, series in enumerate(plot.series):
        traces += _plotly_traces(place, series, plot.stepped)
    marks = numbered_marks(plot)
    lines = [_vertical_line(x) for x, _ in marks]
    numbers = [
        {"x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "text": text, "showarrow": False, "font": {"size": 11}}
        for x, text in mark_labels([x for x, _ in marks], _span(plot))
    ]
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": _plotly_text(plot.x_label), "standoff": 8}},
            "yaxis": {
                "title": {"text": _plotly_text(plot.y_label), "standoff": 8},
                "automargin": True,
                "type": "log" if plot.log_y else "linear",
            },
            "shapes": lines,
            "annotations": numbers,
        },
    }


def _vertical_line(x: float) -> dict[str, Any]:
    line = {"width": 1, "dash": "2px,3px"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "layer": "below", "line": line}


def _plotly_text(text: str) -> str:
    """Text that plotly shows as it is, though it may look like markup."""
    return html.escape(plain(text), quote=False)


def _plotly_traces(place: int, series: Series, stepped: bool) -> list[dict[str, Any]]:
    """The band, if there is one, and the line over it; `customdata` is what the legend says of each point."""
    style = series_style(place, len(series.x))
    texts = _texts(series, 5)
    x, y = _numbers(series.x), _numbers(series.y)
    dash = ",".join(f"{length}px" for length in style.dashes) or "solid"
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "meta": {"place": place},
        "x": x,
        "y": y,
        "line": {"width": style.width, "dash": dash, "shape": "vh" if stepped else "linear"},
        "marker": {"symbol": style.plotly_marker, "size": 6, "maxdisplayed": MOST_MARKERS},
        "customdata": [texts[value] for value in map(float, series.x)],
        "hoverinfo": "none",
    }
    if series.low is None or series.high is None:
        return [line]
    edge_x, edge_y = _outline(x, _numbers(series.low), _numbers(series.high))
    band = {
        "type": "scatter",
        "mode": "lines",
        "hoverinfo": "skip",
        "meta": {"place": place, "band": True},
        "x": edge_x,
        "y": edge_y,
        "fill": "toself",
        "line": {"width": 0},
    }
    return [band, line]


def _numbers(values: Sequence[float]) -> list[float | int | None]:
    """Numbers for JSON: seven digits, whole ones without a point, None for what is not finite."""
    numbers: list[float | int | None] = []
    for value in map(float, values):
        short = float(f"{value:.7g}") if math.isfinite(value) else None
        numbers.append(int(short) if short is not None and short.is_integer() else short)
    return numbers


def _outline(x: Sequence[Any], low: Sequence[Any], high: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The closed curve round a band: there above, back below; one for each stretch without a gap."""
    stretches: list[list[int]] = [[]]
    for index in range(len(x)):
        if None in (x[index], low[index], high[index]):
            stretches.append([])
        else:
            stretches[-1].append(index)
    edge_x: list[Any] = []
    edge_y: list[Any] = []
    for stretch in filter(None, stretches):
        gap = [None] if edge_x else []
        back = stretch[::-1]
        edge_x += gap + [x[index] for index in stretch + back]
        edge_y += gap + [high[index] for index in stretch] + [low[index] for index in back]
    return edge_x, edge_y


# The plots as pictures


def save_plots(document: Document, directory: Path) -> list[Path]:
    """Draws each plot of a document as DIRECTORY/NAME.png, which can be read at a width of 800 pixels.

    Args:
      document: the document.
      directory: where the files go; made if it is not there.

    Returns:
      The files, in the order of the document.

    Raises:
      OSError: a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    plots = [block for section in document.sections for block in section.blocks if isinstance(block, Plot)]
    return [_save_plot(plot, directory / f"{plot.name}.png") for plot in plots]


def _save_plot(plot: Plot, path: Path) -> Path:
    from matplotlib.figure import Figure  # here, since it takes a quarter of a second that a page need not wait
    from matplotlib.transforms import ScaledTranslation

    theme = THEMES["light"]
    marks = numbered_marks(plot)
    texts = [f"{number}  {plain(text)}" for number, (_, text) in enumerate(marks, 1)]
    legend = [line for text in texts for line in textwrap.wrap(text, 110, subsequent_indent="    ")]
    names = [plain(series.name) for series in plot.series]
    columns = 4 if sum(map(len, names)) < 60 else 2
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(8, 4.3 + 0.25 * rows + 0.175 * len(legend)), layout="constrained", facecolor=theme["page"])
    axis = figure.subplots()
    lines = [_draw_series(axis, place, series, plot.stepped) for place, series in enumerate(plot.series)]
    for x, _ in marks:
        axis.axvline(x, color=theme["quiet"], linestyle=":", linewidth=1, zorder=1)
    for x, text in mark_labels([x for x, _ in marks], _span(plot)):
        axis.annotate(
            text, (x, 1.01), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=theme["quiet"], fontsize=9
        )
    axis.set_title(plain(plot.title), loc="left", fontsize=13, fontweight="bold", pad=20 if marks else 10, parse_math=False)
    axis.set_xlabel(plain(plot.x_label), parse_math=False)
    axis.set_ylabel(plain(plot.y_label), parse_math=False)
    if plot.log_y:
        axis.set_yscale("log")
    axis.grid(color=theme["grid"])
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    # Under the label of the axis: the names of the lines, and under them the texts of the marks.
    below = {"xycoords": "axes fraction", "xytext": (-40, -44 - 18 * rows), "textcoords": "offset points", "va": "top"}
    axis.annotate("\n".join(legend), (0, 0), fontsize=9, color=theme["quiet"], linespacing=1.3, parse_math=False, **below)
    if lines:
        corner = axis.transAxes + ScaledTranslation(-40 / 72, -36 / 72, figure.dpi_scale_trans)
        place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": corner, "borderaxespad": 0, "borderpad": 0}
        box = axis.legend(lines, names, ncols=columns, frameon=False, handlelength=4, **place)
        for text in box.get_texts():
            text.set_parse_math(False)
    figure.savefig(path, dpi=160)
    return path


def _draw_series(axis: Any, place: int, series: Series, stepped: bool) -> Any:
    style = series_style(place, len(series.x))
    colour = style.colours["light"]
    if series.low is not None and series.high is not None:
        axis.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    # A pixel of the page is three quarters of a point, and matplotlib counts dashes in line widths.
    dashes = (0, [length / style.width for length in style.dashes]) if style.dashes else "solid"
    (line,) = axis.plot(
        series.x, series.y, color=colour, linewidth=0.75 * style.width, linestyle=dashes, marker=style.matplotlib_marker,
        markersize=4.5, markevery=max(1, math.ceil(len(series.x) / MOST_MARKERS)),
        drawstyle="steps-pre" if stepped else "default",
    )  # fmt: skip
    return line
