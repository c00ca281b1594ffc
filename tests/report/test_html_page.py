"""The page and the pictures of a document: nothing lost, nothing taken for markup, the same lines in both."""

import colorsys
import html.parser
import itertools
import json
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.sample_document import MARKS, NASTY, plots, sample_document
from wrn_jax.report.render import html_page, pictures, style
from wrn_jax.report.render.blocks import Bullets, Document, Plot, Section, Series, Table, Text

VOID = {"meta", "br", "wbr", "link", "input", "img"}


class Reader(html.parser.HTMLParser):
    """Reads a page strictly: what is opened must be closed in turn; (tag, attributes, text within) of every element."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def find(self, tag, **attributes):
        """The texts of the elements with this tag and these attributes."""
        wanted = {name.strip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [text for name, found, text in self.elements if name == tag and wanted.items() <= found.items()]

    def of_class(self, name):
        """The attributes of the elements of this class."""
        return [attributes for _, attributes, _ in self.elements if attributes.get("class") == name]


def document_of(*blocks):
    return Document("Title", [Section("Part", list(blocks))])


def page_of(*blocks):
    return html_page.to_html(document_of(*blocks))


def plot_of(*series, name="p", **more):
    return Plot(name, "t", "epoch", "y", series, **more)


def figures_of(text):
    (data,) = Reader(text).find("script", id="figures")
    return json.loads(data)["figures"]


def traces_of(*series, **more):
    return html_page.plotly_figure(plot_of(*series, **more))["data"]


@pytest.fixture(scope="module")
def sample():
    """The sample document's page, as text and read."""
    text = html_page.to_html(sample_document())
    return text, Reader(text)


def test_everything_in_the_document_is_on_the_page(sample):
    _, reader = sample
    document = sample_document()
    (body,) = reader.find("body")
    assert reader.find("h1") == [document.title]
    assert reader.find("h2") == [section.heading for section in document.sections]
    for block in (block for section in document.sections for block in section.blocks):
        match block:
            case Text(text):
                assert style.plain(text).replace("\n", "") in body
            case Bullets(items):
                assert all(style.plain(item) in reader.find("li") for item in items)
            case Table():
                assert block.caption in reader.find("caption")
                assert all(style.plain(cell) in body for row in block.rows for cell in row)
            case Plot():
                assert block.title in reader.find("h3")
                assert style.plain(block.description) in body


def test_names_are_no_markup(sample):
    text, reader = sample
    assert "<b>cut" not in text
    assert NASTY in reader.find("title")[0]
    assert NASTY in reader.find("th", scope="col")
    assert len(reader.find("script")) == 3
    nasty = Plot(NASTY, NASTY, NASTY, NASTY, [Series(NASTY, [1], [1])], [(1, NASTY)], NASTY)
    (data,) = Reader(page_of(nasty)).find("script", id="figures")
    assert "<" not in data
    assert list(json.loads(data)["figures"]) == ["plot-%3Cb%3Ecut%3C%2Fb%3E%20%26%20%22paste%22%20%25%7By%7D%20%3C%2Fscript%3E"]
    # What plotly shows as text is escaped for it.
    layout = html_page.plotly_figure(Plot("p", "t", "<i>x</i>", "**y** & z", [Series("a", [1], [1])]))["layout"]
    assert [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == ["&lt;i&gt;x&lt;/i&gt;", "y &amp; z"]


def test_the_page_loads_nothing_and_holds_plotly_once(sample):
    text, reader = sample
    assert all("src" not in attributes for _, attributes, _ in reader.elements)
    assert all(attributes.get("href", "#").startswith("#") for _, attributes, _ in reader.elements)
    assert text.count("plotly.js v") == 1
    (policy,) = [attributes["content"] for _, attributes, _ in reader.elements if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert not [loading for loading in ("url(", "@import") if loading in reader.find("style")[0]]


def test_links_and_descriptions_name_what_is_there_once(sample):
    _, reader = sample
    ids = [attributes["id"] for _, attributes, _ in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in reader.elements:
        named = [attributes["href"].removeprefix("#")] if "href" in attributes else []
        for name in ("aria-labelledby", "aria-describedby"):
            named += attributes.get(name, "").split()
        assert set(named) <= set(ids)


@pytest.mark.parametrize(("text", "markup"), [
    ("**a** and **b**", "<strong>a</strong> and <strong>b</strong>"),
    ("**<b>**", "<strong>&lt;b&gt;</strong>"),
    ("2 ** 3 ** 4", "2 ** 3 ** 4"),
    ("2**3", "2**3"),
    ("one\ntwo", "one<br>two"),
    ("recipe.learning_rate", "recipe.<wbr>learning_<wbr>rate"),
    ("session04-dropout=0.2", "session04-dropout=0.2"),
    ("short.word", "short.word"),
    ("--some=1.5", '<span class="unbroken">--some</span>=1.5'),
    ("a -> 1e-05", 'a <span class="unbroken">-&gt;</span> <span class="unbroken">1e-05</span>'),
])  # fmt: skip
def test_markup(text, markup):
    assert html_page.to_markup(text) == markup


def test_a_document_without_plots_is_small_and_tells_notes_and_warnings_apart_in_words():
    text = page_of(Text("Know this.", "note"), Text("Beware.", "warning"), Text("Plain."))
    assert len(text.encode()) < 20_000
    assert "Plotly.react" in text  # the script for tables, which does without plotly
    reader = Reader(text)
    assert reader.find("script", id="figures") == []
    assert reader.find("div", class_="note") == ["iNoteKnow this."]
    assert reader.find("div", class_="warning") == ["!WarningBeware."]


@pytest.mark.parametrize("cells", [
    ["1", "-2.5", "−3", "36,536,884", "1e-3"], ["71.20 %", "–", "n/a"], ["+1.78 points", ""],
    ["71.20 ± 0.31 %", "**72.98 ± 0.4 %**"], ["43.0 % (42.4 to 43.6)", "[1, 2]"], ["< 0.001", "≈ 3 s", "2.9 GB"],
])  # fmt: skip
def test_columns_of_figures(cells):
    assert html_page.is_numeric(cells)


@pytest.mark.parametrize("cells", [["yes", "1"], ["–", ""], [], ["WideResNet-28-10"], ["0.3 → 0.2"], ["100 (best)"], ["3 %!"]])
def test_columns_of_words(cells):
    assert not html_page.is_numeric(cells)


def test_a_table_says_what_heads_what_and_which_rows_are_marked():
    table = Table("What **it** is", ["key", "n", "name"], [["a", "1", "x"], ["b", "2", "y"]], frozenset({1}), "Marked: **b**.")
    reader = Reader(page_of(table))
    assert reader.find("caption") == ["What it is"]
    assert reader.find("th", scope="col") == ["key", "n", "name"]
    assert reader.find("th", scope="row") == ["a", "▸Marked: b"]
    assert reader.find("td", class_="number") == ["1", "2"]
    assert reader.find("tr", class_="marked") == ["▸Marked: b2y"]
    assert reader.find("p", class_="about") == ["Marked: b."]


def test_columns_of_long_texts_do_not_get_narrow_and_rows_fit_them():
    table = Table("c", ["a", "b", "c", "d"], [["x" * 99, "short", "y" * 80, "1"], ["", "a", "2", "2"]])
    assert html_page.column_classes(table) == ["sentences", "", "words", "number"]
    with pytest.raises(ValueError, match="zip"):
        page_of(Table("Wrong", ["a", "b"], [["1", "2", "3"]]))


def test_an_empty_table_and_an_empty_plot_are_shown():
    reader = Reader(page_of(Table("Nothing", ["a", "b"], []), plot_of()))
    assert reader.find("caption") == ["Nothing", "Data of the plot: t"]


def test_gaps_and_single_digits_survive_in_the_data():
    series = Series("a", np.arange(1, 5), np.array([0.1, np.nan, np.inf, 1 / 3]), [0, 0, np.nan, 0], [1, np.nan, 1, 1])
    band, line = figures_of(page_of(plot_of(series)))["plot-p"]["data"]
    assert (line["x"], line["y"]) == ([1, 2, 3, 4], [0.1, None, None, 0.3333333])
    assert line["hovertext"] == ["0.1 (0 to 1)", "", "inf", "0.33333 (0 to 1)"]
    # Two stretches of one point each: there and back.
    assert (band["x"], band["y"]) == ([1, 1, None, 4, 4], [1, 0, None, 1, 0])


def test_names_of_plots_make_names_of_elements():
    names = ["a b", "a-b", 'a"b', "a/b", "ä"]
    text = page_of(*[plot_of(Series("s", [1], [1]), name=name) for name in names])
    ids = [canvas["id"] for canvas in Reader(text).of_class("canvas")]
    assert len(set(ids)) == len(names)
    assert not any(re.search(r"[\s\"<>]", name) for name in ids)
    assert figures_of(text).keys() == set(ids)


def test_a_line_and_its_band_are_one_in_the_legend():
    series = [Series("a", [1, 2, 3], [5, 6, 7], [4, 5, 6], [6, 8, 9]), Series("**b** %{y}", [1, 2], [5, 6])]
    band, first, second = traces_of(*series)
    assert (band["x"], band["y"]) == ([1, 2, 3, 3, 2, 1], [6, 8, 9, 6, 5, 4])  # there above and back below
    assert not band["showlegend"]
    assert band["legendgroup"] == first["legendgroup"] != second["legendgroup"]
    assert (first["name"], second["name"]) == ("a", "b %{y}")


def test_the_table_of_a_plot_has_every_value_and_leaves_gaps_empty():
    lines = Series("a", [1, 2, 3], [0.5, math.nan, 1234567.0]), Series("b", [2, 4], [1, 2], [0, 1], [2, 3])
    table = html_page.data_table(plot_of(*lines))
    assert (table.columns, table.note) == (["epoch", "a", "b"], "")
    assert table.rows == [["1", "0.5", ""], ["2", "", "1 (0 to 2)"], ["3", "1.2346e+06", ""], ["4", "", "2 (1 to 3)"]]


def test_the_table_of_a_long_line_keeps_whole_epochs_or_is_thinned():
    x = np.arange(5000) / 50
    table = html_page.data_table(plot_of(Series("a", x, x)))
    assert [row[0] for row in table.rows] == [str(epoch) for epoch in range(100)]
    assert table.note == "100 of the plot's 5000 places."
    x = 0.5 + np.arange(999)
    table = html_page.data_table(plot_of(Series("a", x, x)))
    assert [row[0] for row in table.rows] == [f"{place:.6g}" for place in x[::5]]


def test_marks_at_one_place_are_one():
    plot = plot_of(marks=[(51, "b"), (41.0051, "a"), (51.0, "c"), (51, "b")])
    assert style.numbered_marks(plot) == [(41.0051, "epoch 41.01: a"), (51.0, "epoch 51: b; c")]


def test_axes_count_epochs_whole_and_pictures_are_small(tmp_path, monkeypatch):
    ticks, really_save = [], Figure.savefig

    def save(figure, *arguments, **options):
        figure.draw_without_rendering()
        low, high = figure.axes[0].get_xlim()
        ticks.append([tick for tick in figure.axes[0].get_xticks() if low <= tick <= high])
        really_save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    for x, step in (([1, 2, 3, 4, 5], 1), ([0.0, 0.7, 2.0], None), ([1, 100], None)):
        plot = plot_of(Series("a", x, [0.1] * len(x)))
        assert html_page.plotly_figure(plot)["layout"]["xaxis"].get("dtick") == step
        (path,) = pictures.save_plots(document_of(plot), tmp_path)
    assert ticks[0] == [1, 2, 3, 4, 5]
    assert any(tick % 1 for tick in ticks[1])
    with Image.open(path) as picture:
        assert picture.mode == "P"


def test_axes_and_steps_are_those_of_the_plot(tmp_path, monkeypatch):
    line, drawn = Series("a", [1, 2], [0.1, 0.001]), []

    really_save = Figure.savefig

    def save(figure, *arguments, **options):
        (axis,) = figure.axes
        drawn.append((axis.get_yscale(), axis.lines, len(axis.get_yticks()) == 0))
        really_save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    for log, stepped, rows in ((False, False, True), (True, True, False)):
        plot = plot_of(line, log_y=log, stepped=stepped, rows=rows)
        figure = html_page.plotly_figure(plot)
        assert figure["layout"]["yaxis"]["type"] == ("log" if log else "linear")
        assert figure["data"][0]["line"]["shape"] == ("vh" if stepped else "linear")
        pictures.save_plots(document_of(plot), tmp_path)
        scale, (drawn_line,), bare = drawn.pop()
        assert bare == rows == (not figure["layout"]["yaxis"].get("showticklabels", True))
        assert figure["data"][0]["hoverinfo"] == ("name" if rows else "text+name")
        assert (scale, drawn_line.get_drawstyle()) == (("log", "steps-pre") if log else ("linear", "default"))


@pytest.mark.parametrize(("heights", "whole"), [([0, 1, 2], True), ([0, 0.5, 2], False), ([1, math.nan, 2], True)])
def test_heights_that_are_places_have_no_numbers_between(heights, whole, tmp_path, monkeypatch):
    ticks = []
    really_save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *rest, **options: (ticks.extend(figure.axes[0].get_yticks()), really_save(figure, *rest, **options)),
    )
    plot = plot_of(Series("a", [0, 1, 2], heights))
    assert html_page.plotly_figure(plot)["layout"]["yaxis"].get("dtick") == (1 if whole else None)
    pictures.save_plots(document_of(plot), tmp_path)
    assert all(float(tick).is_integer() for tick in ticks) == whole


def labels(positions):
    """The labels of vertical lines in a plot from 0 to 100."""
    return style.mark_labels(plot_of(Series("a", [0, 100], [1, 1]), marks=[(x, str(x)) for x in positions]))


@pytest.mark.parametrize(("positions", "expected"), [
    ([], []),
    ([10, 50], [(10, "1"), (50, "2")]),
    ([10, 50, 51, 52, 90], [(10, "1"), (51, "2–4"), (90, "5")]),
    ([50, 51, 52, 57], [(53.5, "1–4")]),  # the joint label is wider, and meets the next one
])  # fmt: skip
def test_labels_of_near_marks_are_joined(positions, expected):
    assert labels(positions) == expected


def test_labels_do_not_overlap_and_leave_none_out():
    numbered = labels(np.sort(np.random.default_rng(0).uniform(0, 100, 30)).tolist())
    assert 3 < len(numbered) < 30
    edges = [(x - len(text) * 3.5 / 2.8, x + len(text) * 3.5 / 2.8) for x, text in numbered]
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(edges))
    numbers = [text.split("–") for _, text in numbered]
    assert [int(last[-1]) + 1 for last in numbers[:-1]] == [int(first[0]) for first in numbers[1:]]


def test_texts_of_marks_are_open_where_they_are_new(sample):
    _, reader = sample
    assert ["open" in marks for marks in reader.of_class("marks")] == [True] + [False] * 8
    changed = plot_of(*plots()["gap"].series, marks=MARKS[:3])
    assert all("open" in marks for marks in Reader(page_of(plots()["gap"], changed)).of_class("marks"))


def channels(colour):
    """Red, green and blue of a colour such as #0072b2, 0..1."""
    return [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]


def luminance(colour):
    """The relative luminance of a colour such as #0072b2, after WCAG 2."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one, other):
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", style.THEMES)
def test_texts_and_lines_stand_out(theme):
    colours = style.THEMES[theme]
    for name in ("text", "quiet", "link", "warning"):
        assert contrast(colours[name], colours["page"]) >= 4.5
        assert contrast(colours[name], colours["raised"]) >= 4.5
    for colour in style.COLOURS[theme]:
        assert contrast(colour, colours["page"]) >= 3
    hues = [colorsys.rgb_to_hls(*channels(colour)) for colour in style.COLOURS[theme]]
    assert len({tuple(np.round(hue, 1)) for hue in hues}) == 8


def test_no_two_lines_look_the_same():
    styles = [style.series_style(place) for place in range(64)]
    assert len({(look.colours["light"], look.dashes) for look in styles}) == 64
    assert len({(look.colours["dark"], look.plotly_marker) for look in styles}) == 64
    for field in ("dashes", "plotly_marker", "matplotlib_marker"):  # told apart without colour
        assert len({getattr(look, field) for look in styles[:8]}) == 8
    # Those that are dense are thin and unbroken.
    dense = style.series_style(1, 501)
    assert (dense.width, dense.dashes) == (1.0, ())
    assert style.series_style(1, 500) == style.series_style(1)


def test_the_pictures(tmp_path):
    odd, y = "$\\frac$", np.arange(40.0)
    series = [Series(f"_{odd} <a>", range(40), y, y - 2, y + 2), Series("b", [3, 9], [30, 1])]
    first = Plot("one", f"A {odd} & more", odd, odd, series, [(10, f"**first** {odd}"), (10.5, "second"), (30, "third")])
    second = plot_of(Series("a", [1], [math.nan]), name="two")
    written = pictures.save_plots(Document("t", [Section("s", [first, Text("x")]), Section("s", [second])]), tmp_path / "new")
    assert written == [tmp_path / "new" / "one.png", tmp_path / "new" / "two.png"]
    with Image.open(written[0]) as image:
        assert (image.width, image.height > 700) == (1280, True)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for place in range(2):
        colour = [round(255 * value) for value in channels(style.series_style(place).colours["light"])]
        assert (pixels == colour).all(axis=1).sum() > 500


def test_page_and_picture_draw_the_same_lines(monkeypatch, tmp_path):
    asked = {html_page: set(), pictures: set()}
    for module, looks in asked.items():
        monkeypatch.setattr(module, "series_style", lambda *place, looks=looks: looks.add(place) or style.series_style(*place))
    document = document_of(plots()["gap"])
    html_page.to_html(document)
    pictures.save_plots(document, tmp_path)
    assert asked[html_page] == asked[pictures] == {(0, 100), (1, 100), (2, 100), (3, 80)}
