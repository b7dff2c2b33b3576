"""A report in a real browser: it asks for nothing, draws, sorts, opens clips and prints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import absent
from tests.reports.test_report import HOSTILE, scored  # noqa: F401 (a fixture)
from vidface.core.files import write_json
from vidface.reports.page import write_report

pytestmark = pytest.mark.slow

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: $CHROMIUM, or the one on the path."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        absent("no browser: apt-get install chromium, or name one in $CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("no playwright: pip install playwright")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Its curves have every block, whatever the scoring stage writes."""
    folder = tmp_path_factory.mktemp("browser")
    run = Path(shutil.copytree(scored, folder / "run"))
    for path in run.glob("scores/*.curves.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        document["retrieval"] = {"map": 0.9, "precision_recall": {
            "recall": [0, 0.5, 1], "precision": [1, 0.9, 0.5],
            "low": [0.9, 0.8, 0.4], "high": [1, 1, 0.6]}}  # fmt: skip
        document["identification"] = {"cmc": {
            "rank": [1, 2, 3], "value": [0.8, 0.9, 1],
            "low": [0.7, 0.8, 1], "high": [0.9, 1, 1]}}  # fmt: skip
        write_json(path, document, digest=True)
    write_report([run], folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page; what it says on the console or asks for fails the test that used it."""
    options = getattr(request, "param", {})
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"alert {dialog.message}"))
    page.on("request", lambda r: r.url.startswith(("data:", "blob:")) or said.append(r.url))
    page.goto(report.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    yield page
    context.close()
    assert said == [report.as_uri()]


def ink(page: Any, selector: str) -> int:
    """How many pixels of a canvas have any colour."""
    return page.evaluate(
        """(selector) => {
          const canvas = document.querySelector(selector);
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let found = 0;
          for (let k = 3; k < data.length; k += 4) if (data[k]) found++;
          return found;
        }""",
        selector,
    )


def column(page: Any, number: int) -> list[str]:
    return page.locator(f"#clips-table tbody tr td:nth-child({number})").all_inner_texts()


def test_every_chart_draws(opened: Any) -> None:
    charts = opened.locator(".chart")
    assert charts.count() == 7  # ROC, DET, PR, CMC, two histograms, the sweep
    for number in range(charts.count()):
        name = charts.nth(number).get_attribute("id")
        assert ink(opened, f"#{name} canvas") > 1000, name
    assert opened.locator("#roc .u-legend .u-series").count() == 3  # FAR, and two scores
    assert opened.locator("#cmc .u-legend .u-series").count() == 3  # and no ends of bands


def test_a_curve_is_read_by_mouse_and_by_keyboard(opened: Any) -> None:
    legend = opened.locator("#sweep-0 .u-legend .u-value")
    before = legend.all_inner_texts()
    opened.locator("#sweep-0 .uplot").focus()
    opened.keyboard.press("ArrowRight")
    first = legend.all_inner_texts()
    opened.keyboard.press("ArrowRight")
    second = legend.all_inner_texts()
    assert (first[0], second[0]) == ("none", "0")
    assert before != first != second
    opened.locator("#roc .u-over").hover(position={"x": 100, "y": 50})
    assert any("." in text for text in opened.locator("#roc .u-value").all_inner_texts()[1:])


def test_a_click_on_a_threshold_shows_its_row(opened: Any) -> None:
    over = opened.locator("#sweep-0 .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    over.click(position={"x": box["width"] - 5, "y": 40})
    assert opened.locator("#sweep-table-0 tr.chosen th").inner_text() == "0.9"
    opened.get_by_role("button", name="Show threshold 0.5 in the chart").click()
    assert opened.locator("#sweep-table-0 tr.chosen th").inner_text() == "0.5"


def test_the_table_of_clips_filters_and_sorts(opened: Any) -> None:
    assert len(column(opened, 1)) == 8
    opened.select_option("#clips-state", "failed")
    assert column(opened, 1) == ["lost"]
    opened.select_option("#clips-state", "")
    opened.select_option("#clips-flag", "contested")
    assert sorted(column(opened, 1)) == ["</script>.v", "blue.v", "green.v"]
    opened.select_option("#clips-flag", "")
    opened.fill("#clips-text", "onerror")
    assert len(column(opened, 1)) == 2
    opened.fill("#clips-text", "")
    heading = opened.locator('th[data-column="faces"] button')
    heading.click()
    place = opened.locator("#clips-table th").all_inner_texts().index("faces") + 1
    assert column(opened, place) == sorted(column(opened, place), key=int)
    heading.focus()
    opened.keyboard.press("Enter")  # the other way round
    assert column(opened, place) == sorted(column(opened, place), key=int, reverse=True)
    assert opened.locator('th[aria-sort="descending"]').inner_text() == "faces"


def test_frames_filter_sort_and_open(opened: Any) -> None:
    cards = opened.locator("#frames-cards .card")
    assert cards.count() == 7
    opened.select_option("#frames-reason", "thin")
    assert cards.locator("h3").all_inner_texts() == ["stranger"]
    opened.select_option("#frames-reason", "")
    opened.select_option("#frames-order", "clip")
    names = cards.locator("h3").all_inner_texts()
    assert names.index("blue.t") < names.index("green.t") < names.index("stranger")
    opened.fill("#frames-text", "green.v")
    assert cards.count() == 1
    opened.wait_for_function("document.querySelector('#frames-cards canvas').width > 0")
    assert ink(opened, "#frames-cards canvas") > 5 * 50 * 50
    opened.locator("#frames-cards button").focus()
    opened.keyboard.press("Enter")
    opened.wait_for_selector("dialog[open] .matrix")
    assert opened.locator("#clip-title").inner_text() == "green.v"
    kinds = [item.get_attribute("class") for item in opened.locator(".faces li").all()]
    assert kinds == ["kept", "second", "kept", "second", "kept"]
    assert opened.locator(".faces img").count() == 5
    assert ink(opened, "#clip-chart canvas") > 500
    assert ink(opened, ".matrix") == 25
    opened.keyboard.press("Escape")
    assert not opened.locator("dialog").is_visible()


def test_a_hostile_name_is_text(opened: Any) -> None:
    assert opened.locator("img[src=x]").count() == 0
    opened.fill("#frames-text", "</script>")
    opened.locator("#frames-cards button").click()
    assert HOSTILE in opened.locator("dialog").inner_text()
    assert opened.locator("img[src=x]").count() == 0


SCHEMES = [{"color_scheme": "light"}, {"color_scheme": "dark"}]


@pytest.mark.parametrize("opened", SCHEMES, indirect=True, ids=["light", "dark"])
def test_no_serious_violation_of_accessibility(opened: Any) -> None:
    opened.evaluate(AXE.read_text(encoding="utf-8"))
    for dialog in (False, True):
        if dialog:
            opened.locator("#frames-cards button").first.click()
            opened.wait_for_selector("dialog[open] .matrix")
        found = opened.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        serious = [
            (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []


@pytest.mark.parametrize("opened", [{"color_scheme": "dark"}], indirect=True)
def test_dark_is_dark_and_charts_follow(opened: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(background) == "rgb(20, 23, 27)"
    dark = opened.locator("#roc canvas").evaluate("canvas => canvas.toDataURL()")
    opened.emulate_media(color_scheme="light")
    opened.wait_for_timeout(300)
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    assert opened.locator("#roc canvas").evaluate("canvas => canvas.toDataURL()") != dark


@pytest.mark.parametrize(
    "opened", [{"viewport": {"width": 360, "height": 740}, "has_touch": True}], indirect=True
)
def test_a_phone_scrolls_one_way_only(opened: Any) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    canvases = "[...document.querySelectorAll('.chart canvas')]"
    widths = opened.evaluate(f"{canvases}.map((canvas) => canvas.clientWidth)")
    assert widths
    assert max(widths) <= 360
    opened.locator("#frames-cards button").first.click()
    box = opened.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


def test_it_prints(opened: Any, tmp_path: Path) -> None:
    opened.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    opened.emulate_media(media="print")
    assert not opened.locator("nav").is_visible()
    drawings = opened.locator("#curves .printed svg")
    for number in range(drawings.count()):
        assert drawings.nth(number).bounding_box()["height"] > 100
    if drawings.count():
        assert not opened.locator("#roc").is_visible()
    else:
        assert opened.locator("#roc canvas").is_visible()
