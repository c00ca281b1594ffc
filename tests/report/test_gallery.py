"""The page of an evaluation: the surest mistakes first, pairs once, every class, and the images themselves."""

import base64
import io

import numpy as np
from PIL import Image

from tests.report.test_html_page import Reader
from wrn_jax.evaluation import metrics
from wrn_jax.report import gallery
from wrn_jax.report.render import html_page, markdown
from wrn_jax.report.render.blocks import Pictures, Plot, Table

NAMES = ("cat", "dog", "<i>ox</i>")
#          cat taken for dog, twice; dog for cat; ox right, twice; one without a prediction
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2])
LOGITS = np.array(
    [[0, 2, 0], [0, 3, 0], [5, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 1], [0, 0, 2], [np.nan, 0, 0]]
)  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


def build(logits=LOGITS):
    scored = metrics.score(logits, LABELS)
    figures = {"splits": {"test": {"calibration_error": 0.25}}, "temperature": {"value": 2.0, "calibration_error": 0.125}}
    return gallery.build("a run", figures, scored, IMAGES, NAMES)


def test_what_stands_on_the_page():
    wrong, pairs, classes, sure = build().sections
    (_, most) = wrong.blocks
    ((_, shown),) = most.groups
    assert [picture.text for picture in shown] == [
        "**dog**, taken for cat 96%", "**cat**, taken for dog 91%", "**cat**, taken for dog 79%"
    ]  # fmt: skip
    assert [np.array(Image.open(io.BytesIO(picture.png))).tolist() for picture in shown] == [
        IMAGES[index].tolist() for index in (3, 1, 0)
    ]
    (pair,) = pairs.blocks
    assert [(heading, len(group)) for heading, group in pair.groups] == [
        ("2 of 3 cat taken for dog", 2), ("1 of 2 dog taken for cat", 1)
    ]  # fmt: skip
    (table,) = classes.blocks
    assert isinstance(table, Table)
    assert table.rows == [
        ["cat", "33.3%", "3", "dog (2)"], ["dog", "50.0%", "2", "cat (1)"], ["<i>ox</i>", "66.7%", "3", ""]
    ]  # fmt: skip
    text, plot = sure.blocks
    assert "25.00%" in text.text
    assert "12.50%" in text.text
    assert isinstance(plot, Plot)
    assert (plot.title, "before any temperature" in text.text) == ("Accuracy by confidence, before any temperature", True)
    assert len(plot.series) == 2


def test_bins_are_those_of_the_calibration_error():
    random = np.random.default_rng(1)
    confidence, correct = random.random(500), random.random(500) < 0.5
    bins = metrics.reliability(confidence, correct)
    assert sum(one.count for one in bins) == 500
    error = sum(abs(one.confidence * one.count - one.right) for one in bins) / 500
    assert np.isclose(error, metrics.calibration_error(confidence, correct))


def test_the_page_holds_its_images_and_no_markup_of_others():
    document = build()
    page = Reader(html_page.to_html(document))
    sources = [attributes["src"] for tag, attributes, _ in page.elements if tag == "img"]
    pictures = [
        picture
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Pictures)
        for _, group in block.groups
        for picture in group
    ]
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources] == [p.png for p in pictures]
    assert not page.find("i")
    assert "- **dog**, taken for cat 96%" in markdown.to_markdown(document)


def test_nothing_is_wrong_or_nothing_is_finite():
    for logits in (10.0 * np.eye(3)[LABELS], np.full((8, 3), np.nan)):
        document = build(logits)
        html_page.to_html(document)
        wrong, pairs, *_ = document.sections
        assert wrong.blocks[-1].text == pairs.blocks[-1].text == "No image is taken for another class."
