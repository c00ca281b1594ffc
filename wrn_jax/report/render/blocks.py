"""A document as data, so that Markdown, HTML and PNG show the same: sections of text, lists, tables and plots.

Text is plain, apart from `**bold**` for what should stand out.
"""

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is "plain", "note" (an explanation) or "warning" (what a reader must not miss)."""

    text: str
    kind: str = "plain"


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of short texts."""

    items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      caption: what it shows, in one line.
      columns: heads, one per column; the first column heads its row.
      rows: cells as text, as many in each row as there are columns.
      marked: indices of rows that stand out (differences, best rows).
      note: what to know when reading it; may be empty.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a plot: `y` over `x`, perhaps with a band from `low` to `high`; NaN is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot of lines.

    Attributes:
      name: a file name without ending, unique in the document.
      title, x_label, y_label: with units.
      series: the lines; those of one group of runs have the same place in every plot of a document.
      marks: (x, text) of vertical lines, such as transitions.
      description: what it shows, in words, for those who do not see it.
      log_y: whether the y axis is better logarithmic; all values, bands included, are then positive or NaN.
      stepped: whether a value holds from the point before it on, so that the lines go in steps.
      points: whether its series are single points, whose `low` and `high` are the ends of their intervals; one of several
        points is then a line in steps, each value holding up to the next point.
      log_x: whether the x axis is better logarithmic; all x are then positive.
      rows: whether a height says nothing but which line it is, so that the y axis has no numbers.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    marks: Sequence[tuple[float, str]] = ()
    description: str = ""
    log_y: bool = False
    stepped: bool = False
    points: bool = False
    log_x: bool = False
    rows: bool = False

    @property
    def x(self) -> list[float]:
        """The x of all its lines, one after the other."""
        return [float(x) for series in self.series for x in series.x]

    @property
    def y(self) -> list[float]:
        """The y of all its lines that are numbers, likewise."""
        return [float(y) for series in self.series for y in series.y if not math.isnan(y)]


@dataclasses.dataclass(frozen=True)
class Strip:
    """A small picture of one value over the epochs.

    Attributes:
      label: what it is.
      span: its lowest and highest value as text.
      edges: where the parts begin, and the last one ends, in finished epochs, [n + 1].
      low, high: the values within each part, [n].
    """

    label: str
    span: str
    edges: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Card:
    """What there is to know of one recipe.

    Attributes:
      name: a file name without ending, unique in the document.
      place: that of its line in every plot.
      description: of the picture, in words.
      strips: its picture.
      facts: (what, text).
    """

    name: str
    title: str
    place: int
    description: str
    strips: Sequence[Strip]
    facts: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    cards: Sequence[Card]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A small picture: the content of its PNG file, of which every pixel is to be seen, and what to write below it."""

    png: bytes
    text: str


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Groups of small pictures side by side: what they show, in one line, and (heading, pictures) of each; a heading may be
    empty."""

    caption: str
    groups: Sequence[tuple[str, Sequence[Picture]]]


Block = Text | Bullets | Table | Plot | Cards | Pictures


@dataclasses.dataclass(frozen=True)
class Section:
    """A headed part of a document; the page shows a folded one on request."""

    heading: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Document:
    """A title and its sections."""

    title: str
    sections: Sequence[Section]

    @property
    def plots(self) -> list[Plot]:
        """All plots, in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Plot)]

    @property
    def cards(self) -> list[Card]:
        """All cards, in their order."""
        groups = [block for section in self.sections for block in section.blocks if isinstance(block, Cards)]
        return [card for group in groups for card in group.cards]
