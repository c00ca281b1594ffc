"""Aligned columns of text, for a terminal."""

import itertools
import textwrap
from collections.abc import Sequence

from wrn_jax.runtime.console import WIDTH


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as aligned columns, the first as heading; where a line would be too wide, the widest cells are wrapped."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(f"{part:<{width}}" for part, width in zip(parts, widths, strict=True)).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
