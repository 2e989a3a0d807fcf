"""The report in a real browser: self-contained, usable by keyboard, without scripts, in dark mode, and printed."""

import shutil
import time

import pytest
from generated import write_sweep

from dg_batchformer.report.page import build_page
from dg_batchformer.results.collect import collect
from dg_batchformer.results.selection import METHODS

pytestmark = pytest.mark.system
TITLES = {name: f"Model selection: {method.title}" for name, method in METHODS.items()}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Return the address of the report of a sweep."""
    folder = write_sweep(tmp_path_factory.mktemp("sweep"), question="Does BatchFormer help?")
    file = folder.path / "report.html"
    file.write_text(build_page(collect([folder.path]), [folder.path]))
    return file.as_uri()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: tools/install_chromium.sh")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Return a function that opens the report with given browser settings."""
    contexts = []

    def _visit(**settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.goto(address)
        return page

    yield _visit
    for context in contexts:
        context.close()


def _shown(page):
    """Return the selection methods whose tables are visible."""
    return [name for name, title in TITLES.items() if page.get_by_role("heading", name=title, exact=True).is_visible()]


def test_the_page_makes_no_requests_and_logs_no_errors(browser, address):
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))

    page.goto(address, wait_until="networkidle")
    page.get_by_text("sweeps/mine.yaml: the sweep file").click()

    assert page.get_by_text("datasets: [PACS]").is_visible()
    assert [url for url in asked if not url.startswith("data:,")] == [address]
    assert said == []
    page.close()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_the_keyboard_switches_the_selection(visit, scripts):
    page = visit(java_script_enabled=scripts)
    assert _shown(page) == ["training-domain"]

    for _ in range(40):
        page.keyboard.press("Tab")
        if page.locator("input[name=method]:focus").count():
            break
    page.keyboard.press("ArrowRight")

    assert _shown(page) == ["oracle"]
    page.get_by_text("swad-averaged", exact=True).first.click()
    assert _shown(page) == ["swad-averaged"]


def test_the_selection_switch_moves_the_figures(visit):
    page = visit(java_script_enabled=False)
    in_sight = (
        "figures => figures.filter(figure => figure.getBoundingClientRect().height).map(figure => figure.className)"
    )

    for name in ("oracle", "training-domain"):
        page.get_by_text(name, exact=True).first.click()
        shown = page.locator("figure").evaluate_all(in_sight)
        assert len(shown) > 4
        assert all(f"by-{name}" in classes.split() for classes in shown)


# Every visible text outside figures, with its colour and that of the nearest ancestor with a background.
_TEXTS = """elements => elements.filter(element => element.getClientRects().length && !element.closest('svg') &&
    [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim())
).map(element => {
    const ground = place => getComputedStyle(place).backgroundColor
    let place = element
    while (place.parentElement && ground(place) === 'rgba(0, 0, 0, 0)') place = place.parentElement
    const behind = ground(place) === 'rgba(0, 0, 0, 0)' ? ground(document.body) : ground(place)
    return [element.textContent.trim().slice(0, 40), getComputedStyle(element).color, behind]
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_marks_can_be_seen(visit, scheme):
    """WCAG 2: text 4.5 (1.4.3), graphics 3 (1.4.11)."""
    page = visit(color_scheme=scheme)
    style = "elements => elements.map(element => getComputedStyle(element))"
    paper = _light(page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))
    words = page.locator("body *").evaluate_all(_TEXTS)
    labels = page.locator("svg.plot text").evaluate_all(f"elements => ({style})(elements).map(one => one.fill)")
    marks = page.locator("#accuracy svg use").evaluate_all(f"elements => ({style})(elements).map(one => one.fill)")

    assert paper > 0.9 if scheme == "light" else paper < 0.02
    assert len(words) > 100
    assert [text for text, ink, ground in words if _contrast(_light(ground), _light(ink)) < 4.5] == []
    assert all(_contrast(paper, _light(colour)) >= 4.5 for colour in set(labels))
    assert len(set(marks)) > 4
    assert all(_contrast(paper, _light(colour)) >= 3 for colour in set(marks) - {"none"})


@pytest.mark.parametrize("width", [390, 1400])
def test_labels_of_figures_do_not_overlap(visit, width):
    page = visit(viewport={"width": width, "height": 844})

    overlapping = page.locator("svg.plot").evaluate_all(
        """figures => figures.flatMap(figure => {
            const texts = [...figure.querySelectorAll('text')]
                .map(text => [text.textContent, text.getBoundingClientRect()]).filter(([, box]) => box.width)
            return texts.flatMap(([one, a], place) => texts.slice(place + 1).filter(([, b]) =>
                Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2.5
            ).map(([other]) => `${figure.getAttribute('aria-label')}: ${one}, ${other}`))
        })"""
    )

    assert overlapping == []


def _light(colour):
    """Return the relative luminance of a CSS colour (WCAG 2)."""
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_a_printed_page_shows_every_selection_and_no_controls(visit):
    page = visit()
    on_screen = page.locator("input[name=method]").count()

    page.emulate_media(media="print")

    assert len(_shown(page)) == on_screen > 3
    assert not page.locator("fieldset").is_visible()
    assert not page.locator("nav").is_visible()


def test_a_narrow_screen_scrolls_boxes_not_the_page(visit):
    page = visit(viewport={"width": 390, "height": 844})

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#answer .scroll").locator("visible=true").first
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.focus()
    page.keyboard.press("ArrowRight")
    deadline = time.monotonic() + 10
    while box.evaluate("box => box.scrollLeft") == 0 and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert box.evaluate("box => box.scrollLeft") > 0
