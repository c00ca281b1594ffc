"""The page of a document as people meet it: in headless Chromium, on a desktop and on a phone.

scripts/test.sh installs Chromium where it may; where there is none, these tests are skipped.
"""

import itertools
import os
import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.sample_document import EPOCHS, GROUPS, plots, sample_document
from wrn_jax.report.render import html_page, style

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on the PATH"),
]

SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2},
}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_page.to_html(sample_document()), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=SCREENS)
def screen(request):
    return request.param


@pytest.fixture(scope="module")
def visit(browser, file, screen):
    """The page with all plots drawn, and a list of what should not happen, to which everything that does is added."""
    context = browser.new_context(**SCREENS[screen])
    opened, mishaps = context.new_page(), []
    opened.on("console", lambda message: mishaps.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: mishaps.append(f"error: {error}"))
    opened.on("request", lambda asked: mishaps.append(f"request: {asked.url}") if asked.url != file.as_uri() else None)
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-plots=drawn]")
    assert opened.locator(".fold .main-svg").count() == 0  # folded away, so not drawn yet
    press(opened.locator(".fold > summary"), screen)
    opened.wait_for_function("() => [...document.querySelectorAll('.canvas')].every((div) => div.querySelector('.main-svg'))")
    yield opened, mishaps
    context.close()


def show_scheme(opened, scheme):
    """Switches to light or dark, and waits until all plots are drawn anew."""
    opened.emulate_media(color_scheme=scheme)
    wanted = "(colour) => [...document.querySelectorAll('.canvas')].every((div) => div.layout.paper_bgcolor === colour)"
    opened.wait_for_function(wanted, arg=style.THEMES[scheme]["page"])


@pytest.fixture
def shown(visit):
    """The page, at its top and zoomed out; whatever a test does, it must not lead to an error or a request."""
    opened, mishaps = visit
    opened.evaluate("scrollTo(0, 0)")
    yield opened
    show_scheme(opened, "light")
    assert mishaps == []


def press(element, screen):
    element.tap() if screen == "phone" else element.click()


def x_range(opened, name):
    return opened.evaluate("name => document.getElementById(name).layout.xaxis.range.map(Number)", f"plot-{name}")


def canvas(opened, name):
    """The plot of this name, scrolled into view, and the rectangle within its axes."""
    drawn = opened.locator(f"#plot-{name}")
    drawn.scroll_into_view_if_needed()
    return drawn, drawn.locator(".nsewdrag").bounding_box()


def reading(opened, name):
    """What plotly says of the point that is pointed at: the heading, and a text for each line."""
    texts = opened.locator(f"#plot-{name} .hoverlayer text")
    expect(texts.first).to_be_visible()
    return texts.all_text_contents()


def test_every_plot_is_drawn(shown):
    for name, plot in plots().items():
        found, box = canvas(shown, name)
        lines = found.locator(".scatterlayer .trace:has(path.point)")
        assert lines.count() == len(plot.series)
        assert all(line.locator("path.js-line").count() > 0 for line in lines.all())
        assert all(line.bounding_box()["width"] > 0.6 * box["width"] for line in lines.all())
        assert found.locator(".scatterlayer path.point").count() >= 20 * len(plot.series)
        bands = found.locator(".scatterlayer path.js-fill")
        assert bands.count() == sum(series.low is not None for series in plot.series)
        assert all(band.bounding_box()["height"] > 20 for band in bands.all())
        assert found.locator(".shapelayer path").count() == len(style.numbered_marks(plot))


def test_pointing_at_an_epoch_shows_the_values_of_all_lines(shown, screen):
    accuracy = plots()["test_accuracy"]
    _, box = canvas(shown, "test_accuracy")
    low, high = x_range(shown, "test_accuracy")
    for epoch in (41, 90):
        where = box["x"] + box["width"] * (epoch - low) / (high - low), box["y"] + box["height"] / 2
        shown.touchscreen.tap(*where) if screen == "phone" else shown.mouse.move(*where)
        expect(shown.locator("#plot-test_accuracy .hoverlayer text").first).to_have_text(f"epoch {epoch}")
        _, *values = reading(shown, "test_accuracy")
        lines = [series for series in accuracy.series if epoch <= len(series.y)]  # the last one has ended before 90
        for series, value in zip(lines, values, strict=True):
            name, _, figures = value.partition(" : ")
            y, low_y, high_y = (line[epoch - 1] for line in (series.y, series.low, series.high))
            assert figures == f"{y:.5g} ({low_y:.5g} to {high_y:.5g})"
            assert series.name.startswith(name.rstrip("."))


def test_zooming_and_going_back(shown, screen):
    drawn, box = canvas(shown, "test_loss")
    low, high = whole = x_range(shown, "test_loss")
    mode = shown.evaluate("document.getElementById('plot-test_loss').layout.dragmode")
    assert mode == (False if screen == "phone" else "zoom")  # a finger over a plot scrolls the page
    if screen == "phone":
        drawn.locator("[data-title='Zoom in']").tap()
    else:
        shown.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 30)
        shown.mouse.down()
        shown.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 150, steps=3)
        shown.mouse.up()
    axis = "document.getElementById('plot-test_loss').layout.xaxis"
    shown.wait_for_function(f"{axis}.range[0] > {low} + 5")
    zoomed = x_range(shown, "test_loss")
    assert low < zoomed[0] < zoomed[1] < high
    show_scheme(shown, "dark")
    assert x_range(shown, "test_loss") == zoomed  # drawn anew, but the same part
    press(drawn.locator("[data-title='Reset axes']"), screen)
    shown.wait_for_function(f"{axis}.range[1] > {zoomed[1]}")
    assert x_range(shown, "test_loss") == pytest.approx(whole)


def test_plots_can_be_read_by_keys(shown):
    found, _ = canvas(shown, "train_loss")
    found.focus()
    found.press("Home")  # no key of the plot's
    for _ in range(EPOCHS - 50):
        found.press("ArrowLeft")
    expect(found.locator(".hoverlayer text").first).to_have_text("epoch 50")
    _, *values = reading(shown, "train_loss")
    assert f" : {plots()['train_loss'].series[0].y[49]:.5g} (" in values[0]
    said = shown.locator("figure:has(#plot-train_loss) [aria-live]")
    expect(said).to_contain_text("epoch 50")
    expect(said).to_contain_text(values[3])
    whole = x_range(shown, "train_loss")
    found.press("+")
    zoomed = x_range(shown, "train_loss")
    assert zoomed[1] - zoomed[0] == pytest.approx(0.7 * (whole[1] - whole[0]))
    found.press("0")
    assert x_range(shown, "train_loss") == pytest.approx(whole)


@pytest.mark.slow
def test_the_legend_names_all_lines_and_hides_them(shown, screen):
    drawn, _ = canvas(shown, "test_accuracy")
    assert drawn.locator(".legendtext").all_text_contents() == list(GROUPS)
    traces = drawn.locator(".scatterlayer .trace")
    before = traces.count()
    item = drawn.locator(".legendtoggle").nth(1)
    press(item, screen)
    expect(traces).to_have_count(before - 2)  # the line and its band
    show_scheme(shown, "dark")
    expect(traces).to_have_count(before - 2)  # drawn anew, but still hidden
    shown.wait_for_timeout(400)  # a second click sooner than that would be a double one
    press(item, screen)
    expect(traces).to_have_count(before)


def test_nothing_is_wider_than_the_screen(shown, screen):
    drawn = "() => [...document.querySelectorAll('.canvas')].every((div) => div._fullLayout.width === div.clientWidth)"
    for width in (SCREENS[screen]["viewport"]["width"], 360):
        shown.set_viewport_size({"width": width, "height": 800})
        shown.wait_for_function(drawn)
        page_width, screen_width = shown.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert page_width <= screen_width == width
        # So is no name in a legend, however long.
        assert shown.evaluate(
            "[...document.querySelectorAll('.legendtext')].every((one) => one.getBoundingClientRect().right < innerWidth - 19)"
        )
        # A table that is wider than its box says so.
        assert shown.evaluate(
            """[...document.querySelectorAll("main > section > .table")].every((table) => {
                const box = table.querySelector(".box");
                return table.querySelector(".hint").checkVisibility() === box.scrollWidth > box.clientWidth + 1;
            })"""
        )
    assert shown.locator(".hint:visible").count() > 0  # at 360 pixels
    shown.set_viewport_size(SCREENS[screen]["viewport"])


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((channels(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim()) continue;
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const style = getComputedStyle(element);
    const colour = element.closest("svg") ? style.fill : style.color;
    const [dark, light] = [luminance(colour), luminance(behind(element))].sort((a, b) => a - b);
    found.push([(light + 0.05) / (dark + 0.05), texts.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(shown, scheme):
    show_scheme(shown, scheme)
    shown.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    contrasts = shown.evaluate(CONTRASTS)
    shown.evaluate("for (const details of document.querySelectorAll('details:not(.fold)')) details.open = false")
    assert len(contrasts) > 4000
    assert {text for _, text in contrasts} >= {
        "Folded away",
        "0 to 0.1",
        "Warning",
        "accuracy (%)",
        "5–7",
        "Data as a table",
        GROUPS[3],
    }
    assert [(ratio, text) for ratio, text in contrasts if ratio < 4.5] == []


def test_the_structure_can_be_read_aloud(shown):
    assert shown.locator("html").get_attribute("lang") == "en"
    assert shown.title() == sample_document().title
    levels = shown.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((heading) => Number(heading.tagName[1]))")
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert shown.locator("table:not(:has(caption)), th:not([scope]), tr:not(:has(th))").count() == 0
    for name, plot in plots().items():
        interactive = shown.get_by_role("group", name=f"Interactive plot: {plot.title}", exact=True)
        assert interactive.get_attribute("id") == f"plot-{name}"
        assert shown.get_by_role("figure", name=plot.title, exact=True).count() == 1
    nameless = shown.evaluate(
        """[...document.querySelectorAll("button, a, summary")]
            .filter((one) => !one.textContent.trim() && !one.ariaLabel && !one.dataset.title)
            .map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    # The first key leads past the contents.
    assert shown.evaluate("document.querySelector('a, button, summary, [tabindex]').className") == "skip"
    shown.locator(".skip").press("Enter")
    assert shown.evaluate("document.activeElement.id") == "content"


def test_without_scripts_the_figures_are_there(browser, file):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(file.as_uri())
    opened.locator("summary", has_text="Data as a table").first.click()
    assert opened.get_by_role("table", name="Data of the plot: Test accuracy").is_visible()
    context.close()


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
def test_a_link_opens_what_is_folded_away(shown):
    fold = shown.locator(".fold")
    assert shown.locator(".card svg").count() == len(GROUPS)
    fold.evaluate("fold => { fold.open = false; }")
    shown.get_by_role("link", name="Folded away").click()
    expect(shown.locator(".card").first).to_be_visible()
    expect(shown.locator("#plot-rate_at_evaluation .main-svg").first).to_be_visible()


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
def test_on_paper_plots_are_light_and_fit(shown):
    show_scheme(shown, "dark")
    shown.evaluate(
        """() => {
            const look = (div) => [div.layout.width, div.layout.paper_bgcolor];
            window.looks = () => [...document.querySelectorAll(".canvas")].map(look);
            addEventListener("beforeprint", () => { window.printed = looks(); });
        }"""
    )
    pdf = shown.pdf(prefer_css_page_size=True)
    sizes = re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", pdf)
    assert {float(width) > float(height) for width, height in sizes} == {False, True}  # wide tables lie on their side
    assert shown.evaluate("printed") == [[660, "#ffffff"]] * len(plots())
    shown.wait_for_function("() => looks().every(([width, colour]) => width > 660 && colour !== '#ffffff')")


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
def test_on_paper_no_table_is_wider_than_the_page(shown):
    shown.emulate_media(media="print")
    tables = "(which) => [...document.querySelectorAll(which)].filter((table) => table.checkVisibility())"
    for width, which in ((680, ".table:not(.wide) table"), (965, ".wide table")):  # A4 upright, letter paper on its side
        shown.set_viewport_size({"width": width, "height": 800})
        widths = shown.evaluate(f"which => ({tables})(which).map((table) => table.offsetWidth)", which)
        assert 0 < max(widths) <= width
    shown.emulate_media(media="screen")
    shown.set_viewport_size(SCREENS["desktop"]["viewport"])
