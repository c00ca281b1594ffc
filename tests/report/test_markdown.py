"""Documents as Markdown: what is markup and what must not be taken for it."""

import pytest

from wrn_jax.report.render.blocks import Bullets, Document, Plot, Section, Table, Text
from wrn_jax.report.render.markdown import to_markdown


def of(*blocks):
    """The Markdown of blocks in a section, without the headings."""
    title, heading, rest = to_markdown(Document("Title", [Section("Heading", blocks)]), "pictures").split("\n\n", 2)
    assert (title, heading) == ("# Title", "## Heading")
    return rest


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Text("Some **bold** text."), "Some **bold** text.\n"),
        (Text("one\ntwo", "warning"), "> **Warning:** one\n> two\n"),
        (Text("explained", "note"), "> **Note:** explained\n"),
        (Bullets(["one", "two"]), "- one\n- two\n"),
        (Plot("acc", "Accuracy", "x", "y", [], (), "What it shows."), "![Accuracy](pictures/acc.png)\n\nWhat it shows.\n"),
        (Plot("acc", "Accuracy", "x", "y", []), "![Accuracy](pictures/acc.png)\n"),
    ],
)
def test_blocks(block, expected):
    assert of(block) == expected


def test_a_table_has_caption_heads_rows_and_note():
    table = Table("A caption", ("x", "y"), [("1", "a|b"), ("2", "c\nd")], frozenset({1}), "A note.")
    assert of(table) == "**A caption**\n\n| x | y |\n|---|---|\n| 1 | a\\|b |\n| **2** | c<br>d |\n\nA note.\n"


def test_a_marked_cell_that_is_bold_stays_as_it_is():
    assert "| **1** |" in of(Table("A", ("x",), [("**1**",)], frozenset({0})))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p < 0.05 & more", "p &lt; 0.05 &amp; more"),
        ("<b>not bold</b>", "&lt;b>not bold&lt;/b>"),
        ("session04_as_executed", "session04_as_executed"),
        ("_not_ slanted", "\\_not\\_ slanted"),
        ("2 * 3 and **bold**", "2 \\* 3 and **bold**"),
        ("[not](a link) `code`", "\\[not\\](a link) \\`code\\`"),
    ],
)
def test_nothing_in_a_text_is_taken_for_markup(text, expected):
    assert of(Text(text)) == expected + "\n"
