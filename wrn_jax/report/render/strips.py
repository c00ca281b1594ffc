"""The picture of a card as SVG: its strips below each other, in the colours of a page or, as a file, in its own."""

import html
import itertools
import math

from wrn_jax.report.render.blocks import Card, Strip
from wrn_jax.report.render.style import COLOURS, THEMES, plain

WIDTH = 340
"""That of a phone within the margins, so that texts keep their size there."""

_TEXT, _CHART, _GAP = 15, 30, 9
"""Heights: of a label, of the picture below it, of the space to the next."""


def to_svg(card: Card, file: bool = False) -> str:
    """The strips of a card; for a `file` with the colours that a page has, after the theme of who looks at it."""
    height = len(card.strips) * (_TEXT + _CHART + _GAP) + _TEXT
    end = max((strip.edges[-1] for strip in card.strips), default=1.0)
    strips = "".join(_strip(strip, index * (_TEXT + _CHART + _GAP), end) for index, strip in enumerate(card.strips))
    below = f'<text class="quiet" y="{height - 4}">epoch 1</text>' + _at_right("quiet", height - 4, f"{end:g}")
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" class="strips" role="img"'
    size = f' width="{WIDTH}" height="{height}"' if file else ""
    colours = _styles(card.place) if file else ""
    colour = f"color: var(--line-{card.place % len(COLOURS['light'])})"
    label = html.escape(plain(card.description))
    return f'{start}{size} style="{colour}" aria-label="{label}">{colours}{strips}{below}</svg>'


def _strip(strip: Strip, top: int, end: float) -> str:
    values = [value for value in (*strip.low, *strip.high) if math.isfinite(value)]
    low, high = min(values), max(values)
    room = (high - low) or 1.0

    def at(value: float) -> str:
        return f"{top + _TEXT + 3 + (_CHART - 4) * (1 - (value - low) / room if high > low else 0.5):.1f}".removesuffix(".0")

    places = [f"{WIDTH * edge / end:.1f}".removesuffix(".0") for edge in strip.edges]
    parts = list(zip(itertools.pairwise(places), strip.low, strip.high, strict=True))
    known = [part for part in parts if math.isfinite(part[1] + part[2])]
    above = [f"{left},{at(peak)} {right},{at(peak)}" for (left, right), _, peak in known]
    below = [f"{right},{at(floor)} {left},{at(floor)}" for (left, right), floor, _ in reversed(known)]
    base = f'<path class="base" d="M0 {top + _TEXT + _CHART + 1.5}H{WIDTH}"/>'
    outline = f'<polygon class="course" points="{" ".join([*above, *below])}"/>'
    return f'<text y="{top + 11}">{html.escape(strip.label)}</text>{_at_right("quiet", top + 11, strip.span)}{base}{outline}'


def _at_right(kind: str, y: int, text: str) -> str:
    return f'<text class="{kind}" x="{WIDTH}" y="{y}" text-anchor="end">{html.escape(text)}</text>'


def _styles(place: int) -> str:
    """What the page's style sheet says of strips, and the colours of both themes."""

    def variables(theme: str) -> str:
        line = COLOURS[theme][place % len(COLOURS[theme])]
        colours = {name: THEMES[theme][name] for name in ("text", "quiet", "rule")}
        names = colours | {f"line-{place % len(COLOURS[theme])}": line}
        return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in names.items()) + " }"

    dark = f"@media (prefers-color-scheme: dark) {{ {variables('dark')} }}"
    return f"<style>{variables('light')} {dark} {LOOK}</style>"


LOOK = (
    ".strips text { font: 11px system-ui, sans-serif; fill: var(--text); } .strips .quiet { fill: var(--quiet); } "
    ".strips .base { stroke: var(--rule); } "
    ".strips .course { fill: currentColor; fill-opacity: 0.22; stroke: currentColor; stroke-width: 1.3; "
    "stroke-linejoin: round; }"
)
"""The style sheet of strips."""
