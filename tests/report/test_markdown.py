"""Documents as Markdown: what is markup and what must not be taken for it."""

import pytest

from wrn_jax.report.render.blocks import Bullets, Document, Plot, Section, Table, Text
from wrn_jax.report.render.markdown import to_markdown


@pytest.mark.parametrize(("block", "expected"), [
    (Text("Some **bold** text."), "Some **bold** text."),
    (Text("one\ntwo", "warning"), "> **Warning:** one\n> two"),
    (Text("explained", "note"), "> **Note:** explained"),
    (Bullets(["one", "two"]), "- one\n- two"),
    (Plot("acc", "Accuracy", "x", "y", [], (), "What it shows."), "![Accuracy](pictures/acc.png)\n\nWhat it shows."),
    (Plot("acc", "Accuracy", "x", "y", []), "![Accuracy](pictures/acc.png)"),
    (Table("A caption", ("x", "y"), [("1", "a|b"), ("2", "c\nd"), ("**3**", "")], frozenset({1, 2}), "A note."),
     "**A caption**\n\n| x | y |\n|---|---|\n| 1 | a\\|b |\n| **2** | c<br>d |\n| **3** |  |\n\nA note."),
    # Nothing in a text is taken for markup.
    (Text("p < 0.05 & more"), "p &lt; 0.05 &amp; more"),
    (Text("<b>not bold</b>"), "&lt;b>not bold&lt;/b>"),
    (Text("session04_as_executed"), "session04_as_executed"),
    (Text("# no heading"), "\\# no heading"),
    (Bullets(["1. no list", "> no quotation", "-0.5 points"]), "- 1\\. no list\n- \\> no quotation\n- -0.5 points"),
    (Text("_not_ slanted"), "\\_not\\_ slanted"),
    (Text("2 * 3 and **bold**"), "2 \\* 3 and **bold**"),
    (Text("[not](a link) `code`"), "\\[not\\](a link) \\`code\\`"),
])  # fmt: skip
def test_blocks(block, expected):
    title, heading, text = to_markdown(Document("Title", [Section("Heading", [block])]), "pictures").split("\n\n", 2)
    assert (title, heading, text) == ("# Title", "## Heading", f"{expected}\n")
