"""The report in a real browser: it draws everything, complains about nothing, and asks the network for nothing."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fupruner.report.html import write_report
from unit.report.builder import DECISIONS, build_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on PATH"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the driver's own sockets
]

LAYERS, EPOCHS, ATTEMPTS = 40, 5, 3
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(build_run(tmp_path_factory.mktemp("browser") / "run", layers=LAYERS, epochs=EPOCHS))


def show(driver, page: Path, width: int = 1100, scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    driver.get(page.as_uri())
    _drawn(driver)


def _drawn(driver) -> None:
    """Wait for the axes of all charts: on a busy machine Plotly draws them after the page has loaded."""
    from selenium.webdriver.support.ui import WebDriverWait

    script = """return [...document.querySelectorAll('.js-plotly-plot')].every((p) => p.querySelector('.xtick text'))
        && document.querySelectorAll('.js-plotly-plot').length === JSON.parse(figures.textContent).length"""
    WebDriverWait(driver, 30).until(lambda shown: shown.execute_script(script))


def points(driver, chart: str) -> dict[str, int]:
    """Points per trace, as Plotly itself holds them."""
    script = "return document.getElementById(arguments[0]).data.map((t) => [t.name, t.x.length])"
    return dict(driver.execute_script(script, chart))


def test_every_point_is_drawn(driver, page: Path) -> None:
    show(driver, page)
    trade_off = points(driver, "chart-trade-off")
    assert trade_off["attempt, requirement met"] + trade_off["attempt, requirement not met"] == ATTEMPTS
    assert points(driver, "chart-widths") == {"before": LAYERS, "after": LAYERS}
    assert points(driver, "chart-times") == {"before": LAYERS, "after": LAYERS}
    assert points(driver, "chart-accuracy")["attempt 1 (1.50x)"] == EPOCHS
    gates = points(driver, "chart-gates")
    assert gates["attempt 3, reopened"] == gates["attempt 3, closed"] == DECISIONS
    bars = driver.execute_script("return document.querySelectorAll('#chart-widths .bars .point').length")
    assert bars == 2 * LAYERS


def test_labels_do_not_overlap(driver, page: Path) -> None:
    show(driver, page)
    script = """return [...document.querySelectorAll('#chart-widths .ytick text')].map((label) => {
        const box = label.getBoundingClientRect(); return [box.top, box.bottom]; })"""
    boxes = sorted(driver.execute_script(script))
    assert len(boxes) == LAYERS
    assert all(upper[1] <= lower[0] + 1 for upper, lower in itertools.pairwise(boxes))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_console_is_silent_and_the_network_is_not_used(driver, page: Path, scheme: str) -> None:
    for log in ("browser", "performance"):
        driver.get_log(log)
    show(driver, page, scheme=scheme)
    assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}


def test_charts_follow_the_colour_scheme(driver, page: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        show(driver, page, scheme=scheme)
        script = "return document.getElementById('chart-widths').data[1].marker.color"
        colours[scheme] = driver.execute_script(script)
    assert colours == {"light": "#0072b2", "dark": "#56b4e9"}


def test_phone_does_not_scroll_sideways(driver, page: Path) -> None:
    show(driver, page, width=390)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390


def test_names_run_no_code(driver, page: Path) -> None:
    show(driver, page)
    assert driver.execute_script("return document.querySelectorAll('script').length") == 3
    assert "<script>alert(1)</script>" in driver.execute_script("return document.body.textContent")


def test_networks_are_drawn_and_zoom_by_button_and_key(driver, page: Path) -> None:
    show(driver, page)
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('.pane')].map((p) => p.querySelectorAll('.box').length)"
    )
    assert boxes == [2 + 2 * LAYERS + LAYERS // 2, 2 + LAYERS + LAYERS // 2, 2 + LAYERS // 2 + LAYERS // 4]
    width = "return Number(document.querySelector('#drawing-before svg').getAttribute('width'))"
    first = driver.execute_script(width)
    driver.execute_script("document.querySelector('[data-zoom=in]').click()")
    larger = driver.execute_script(width)
    pane = driver.find_element("css selector", "#drawing-before")
    pane.send_keys("-")
    assert larger > first
    assert driver.execute_script(width) == pytest.approx(first)
    pane.send_keys("0")
    script = "const p = document.querySelector('#drawing-before'); return [p.scrollHeight, p.clientHeight]"
    whole = driver.execute_script(script)
    assert whole[0] <= whole[1]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 390)])
def test_rules_of_accessibility_are_kept(driver, page: Path, scheme: str, width: int) -> None:
    """As axe-core checks them: names, roles, contrast, headings, landmarks, what can be reached by keyboard."""
    axe_core_python = pytest.importorskip("axe_core_python", reason="needs pip install axe-core-python")
    show(driver, page, width=width, scheme=scheme)
    driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    driver.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run(document).then((found) => done(found.violations.map("
        "(v) => [v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + ' ' + n.failureSummary)])))"
    )
    assert found == []


def test_tab_goes_first_to_the_contents_and_then_through_everything_in_order(driver, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(driver, page)
    reached = []
    for _ in range(12):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(driver.execute_script("return document.activeElement.textContent.trim().slice(0, 40)"))
    assert reached[0] == "Skip to the charts and tables"
    links = driver.execute_script("return [...document.querySelectorAll('nav a')].map((a) => a.textContent)")
    assert reached[2 : 2 + len(links)] == links[:10]
    outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_page_is_small_enough_to_send(page: Path) -> None:
    assert page.stat().st_size < 8e6
