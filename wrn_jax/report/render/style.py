"""How the lines of a plot look, on the page and in its pictures, and what stands above its vertical lines.

Colours follow Okabe and Ito ("Color Universal Design", 2008), made darker or lighter until each stands out from the page;
dashes and markers tell the lines apart without them.
"""

import dataclasses
import math
import re

from wrn_jax.report.render.blocks import Plot

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
# Pixels drawn and left out in turn; the marker as plotly calls it, and as matplotlib does.
PATTERNS = (
    ((), "circle", "o"), ((9, 4), "square", "s"), ((2, 3), "triangle-up", "^"), ((9, 3, 2, 3), "diamond", "D"),
    ((16, 4), "x", "X"), ((5, 2), "cross", "P"), ((16, 3, 2, 3), "pentagon", "p"), ((2, 3, 5, 3), "star", "*"),
)  # fmt: skip
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Style:
    """How a line looks: colours by theme, width in pixels, pixels drawn and left out in turn (empty for an unbroken line), and
    the marker as plotly and matplotlib call it."""

    colours: dict[str, str]
    width: float
    dashes: tuple[int, ...]
    plotly_marker: str
    matplotlib_marker: str


def series_style(place: int, points: int = 0) -> Style:
    """The style of the line at a place (from 0) of a plot, given its number of points; the first 64 differ from each other."""
    colours = {theme: colours[place % len(colours)] for theme, colours in COLOURS.items()}
    dashes, *markers = PATTERNS[(place + place // len(PATTERNS)) % len(PATTERNS)]
    return Style(colours, 1.0, (), *markers) if points > DENSE else Style(colours, 2.0, dashes, *markers)


def bold_as(replacement: str, text: str) -> str:
    r"""The text with each `**bold**` replaced, \1 being what is bold."""
    return _BOLD.sub(replacement, text)


def plain(text: str) -> str:
    """The text without the signs for bold."""
    return bold_as(r"\1", text)


def numbered_marks(plot: Plot) -> list[tuple[float, str]]:
    """The marks in their order, those at one x together: (x, text with the x in front)."""
    texts: dict[float, list[str]] = {}
    for x, text in sorted(plot.marks, key=lambda mark: mark[0]):
        if text not in texts.setdefault(float(x), []):
            texts[float(x)].append(text)
    return [(x, f"{plot.x_label} {round(x, 2):g}: {'; '.join(at_x)}") for x, at_x in texts.items()]


def log_ticks(plot: Plot) -> list[float]:
    """1, 2 and 5 times the powers of ten around the x of a plot."""
    x = plot.x
    powers = range(math.floor(math.log10(min(x))) - 1, math.ceil(math.log10(max(x))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if min(x) / 2.5 < tick < 2.5 * max(x)]


def counts_whole(plot: Plot) -> bool:
    """Whether the x of a plot count something, such as epochs, between whose numbers there is none."""
    return bool(plot.x) and not plot.log_x and all(map(float.is_integer, plot.x))


def has_whole_heights(plot: Plot) -> bool:
    """Whether all y of a plot are whole, such as the places of levels."""
    return bool(plot.y) and not plot.log_y and all(map(float.is_integer, plot.y))


def mark_labels(plot: Plot) -> list[tuple[float, str]]:
    """(x, text) of the numbers above the vertical lines; lines so near that theirs would overlap on 280 pixels share one,
    such as 3–5."""
    marks = [x for x, _ in numbered_marks(plot)]
    places = [*marks, *plot.x]
    pixel = (max(places) - min(places)) / 280 if places else 0.0

    def label(first: int, last: int) -> tuple[float, str, float]:
        text = str(first) if first == last else f"{first}–{last}"
        return (marks[first - 1] + marks[last - 1]) / 2, text, (7 * len(text) + 4) * pixel

    groups: list[tuple[int, int]] = []
    for number in range(1, len(marks) + 1):
        groups.append((number, number))
        while len(groups) > 1:
            (left, _, left_width), (right, _, right_width) = label(*groups[-2]), label(*groups[-1])
            if right - left >= (left_width + right_width) / 2:
                break
            groups[-2:] = [(groups[-2][0], groups[-1][1])]
    return [label(*group)[:2] for group in groups]
