"""A document as Markdown (GitHub's flavour), its plots as pictures beside it."""

import re
from collections.abc import Sequence

from wrn_jax.report.render.blocks import Block, Bullets, Card, Cards, Document, Pictures, Plot, Table, Text


def to_markdown(document: Document, folder: str = "plots") -> str:
    """Writes a document as Markdown whose plots lie as NAME.png, its cards' as NAME.svg, in `folder`, relative to the file."""
    blocks = [f"# {_plain(document.title)}"]
    for section in document.sections:
        blocks.append(f"## {_plain(section.heading)}")
        blocks += [to_markdown_block(block, folder) for block in section.blocks]
    return "\n\n".join(blocks) + "\n"


def to_markdown_block(block: Block, folder: str = "plots") -> str:
    """One block, likewise."""
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
        case Cards(cards):
            return "\n\n".join(_card(card, folder) for card in cards)
        case Pictures(caption, groups):
            items = [
                f"- {_plain(': '.join(filter(None, [head, picture.text])))}" for head, group in groups for picture in group
            ]
            return "\n\n".join([f"**{_plain(caption)}**", "\n".join(items)])


def _card(card: Card, folder: str) -> str:
    facts = "\n".join(f"- **{_plain(what)}:** {_plain(text)}" for what, text in card.facts)
    picture = [f"![{_plain(card.description)}]({folder}/{card.name}.svg)"] if card.strips else []
    return "\n\n".join([f"### {_plain(card.title)}", *picture, facts])


def _table(table: Table) -> str:
    lines = [_row(table.columns), "|" + "---|" * len(table.columns)]
    for index, (first, *rest) in enumerate(table.rows):
        lines.append(_row([f"**{first}**" if index in table.marked and "**" not in first else first, *rest]))
    return "\n\n".join([f"**{_plain(table.caption)}**", "\n".join(lines), *([_plain(table.note)] if table.note else [])])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def _plain(text: str) -> str:
    """The text so that nothing in it is taken for markup, apart from `**bold**`."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"(?m)^(\s*[0-9]*)([#>+.)-]+)(?=\s)", r"\1\\\2", text)  # headings, lists and quotations begin a line
    text = re.sub(r"(?<!\*)\*(?!\*)", r"\\*", text)
    return re.sub(r"[`\[\]]", lambda match: "\\" + match[0], re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text))
