"""A document as Markdown (GitHub's flavour), its plots as pictures beside it."""

import re
from collections.abc import Sequence

from wrn_jax.report.render.blocks import Block, Bullets, Document, Plot, Table, Text


def to_markdown(document: Document, folder: str = "plots") -> str:
    """Writes a document as Markdown.

    Args:
      document: the document.
      folder: where the plots lie as NAME.png, relative to the file.
    """
    blocks = [f"# {_plain(document.title)}"]
    for section in document.sections:
        blocks.append(f"## {_plain(section.heading)}")
        blocks += [_block(block, folder) for block in section.blocks]
    return "\n\n".join(blocks) + "\n"


def _block(block: Block, folder: str) -> str:
    match block:
        case Text(text, "plain"):
            return _plain(text)
        case Text(text, kind):
            return f"> **{kind.capitalize()}:** " + _plain(text).replace("\n", "\n> ")
        case Bullets(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Table():
            return _table(block)
        case Plot(name=name, title=title, description=description):
            picture = f"![{_plain(title)}]({folder}/{name}.png)"
            return f"{picture}\n\n{_plain(description)}" if description else picture


def _table(table: Table) -> str:
    lines = [_row(table.columns), "|" + "---|" * len(table.columns)]
    for index, row in enumerate(table.rows):
        first = _emphasised(row[0]) if index in table.marked else row[0]
        lines.append(_row([first, *row[1:]]))
    parts = [f"**{_plain(table.caption)}**", "\n".join(lines)]
    if table.note:
        parts.append(_plain(table.note))
    return "\n\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def _emphasised(text: str) -> str:
    return text if "**" in text else f"**{text}**"


def _plain(text: str) -> str:
    """The text so that nothing in it is taken for markup, apart from `**bold**`."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"(?<!\*)\*(?!\*)", r"\\*", text)
    return re.sub(r"[`\[\]]", lambda match: "\\" + match[0], re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text))
