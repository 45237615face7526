"""The page in a real browser, in both forms: it opens, asks for nothing, says what the summary says, answers to the
pointer, and has no serious fault of accessibility. How long it took to open is printed: ``pytest -s``."""

from __future__ import annotations

import json
import os
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from time import monotonic

import numpy as np
import pytest

from kdmesh.report.page.blocks import Sample, Samples, Section, Value
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import save
from kdmesh.report.page.samples import address

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("chromium") is None or shutil.which("chromedriver") is None,
        reason="needs chromium and chromedriver on the PATH",
    ),
]


def grow(folder: Path, agents: int, rounds: int) -> None:
    """Give a run's summary and events more students, and rounds of all of them, with made-up figures."""
    draw = Random(0).random
    summary = json.loads((folder / "summary.json").read_text())
    names = [f"s{number}" for number in range(agents - len(summary["agents"]))]
    for name in names:
        node = summary["agents"][name] = deepcopy(summary["agents"]["s"])
        node["metrics"]["test"]["accuracy"], node["parameters"] = draw(), int(1e6 * draw()) + 1
    summary["rounds"] = [
        {
            "stage": "s",
            "round": number + 1,
            "rounds": rounds,
            "metrics": {"agreement": draw(), "churn": draw(), "accuracy": {name: draw() for name in names}},
        }
        for number in range(rounds)
    ]
    (folder / "summary.json").write_text(json.dumps(summary))
    with (folder / "events.jsonl").open("a") as log:
        for record in summary["rounds"]:
            for name in names:
                measured = {"stage": "s", "agent": name, "stream": "validation", "epoch": record["round"]}
                metrics = {"accuracy": draw(), "loss": draw()}
                log.write(json.dumps({"event": "evaluated", "t": 9.0, **measured, "metrics": metrics}) + "\n")
            log.write(json.dumps({"event": "round_finished", "t": 9.0, **record}) + "\n")


SPECS = "document.querySelectorAll('figure > .spec')"


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory) -> Path:
    """A run of 30 agents and 20 rounds."""
    root = tmp_path_factory.mktemp("browser") / "run"
    (small,) = (made / "small").iterdir()
    shutil.copytree(small, root)
    grow(root, 30, 20)
    return root


@pytest.fixture(scope="module")
def pages(folder) -> dict[str, Path]:
    """Its page in both forms; with samples, of which its own data, given from Python, have none."""
    page = page_of(folder)
    answer = [("t1", "teacher", "1", Value(0.5, "50%"), True), ("s", "student", "2", None, False)]
    one = Sample("7", "1", address(np.arange(64, dtype=np.uint8).reshape(1, 8, 8)), None, answer)
    shown = Section(
        "shown", "Shown", [Samples("Samples", [one, replace(one, picture=None, text="words " * 60)], "Two.")]
    )
    page = replace(page, sections=[*page.sections, shown])
    paths = {name: folder / f"{name}.html" for name in ("static", "interactive")}
    for name, path in paths.items():
        save(path, page, interactive=name == "interactive")
    return paths


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install 'kdmesh[browser]'")
    options = webdriver.ChromeOptions()
    for one in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1600,1200",
    ):
        options.add_argument(one)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(300)
    yield driver
    driver.quit()


def look(browser, width: int = 1600, scheme: str = "light", scripts: bool = True) -> None:
    """Set how the page is looked at, and forget what the browser told before."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")


def until(browser, script: str, *about) -> object:
    """What a script gives as soon as it is something."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 120, 0.05).until(lambda _: browser.execute_script(script, *about))


def draw_all(browser) -> int:
    """Bring every chart into view until it is drawn; returns how many there are."""
    count = browser.execute_script(f"return {SPECS}.length")
    for number in range(count):
        figure = f"{SPECS}[arguments[0]].parentElement"
        browser.execute_script(f"{figure}.scrollIntoView({{behavior: 'instant'}})", number)
        until(browser, f"return {figure}.classList.contains('drawn')", number)
    return count


def asked_for(browser) -> list[str]:
    """The addresses that the page asked for, but those that hold their data themselves."""
    told = (json.loads(one["message"])["message"] for one in browser.get_log("performance"))
    found = [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]
    return [one for one in found if not one.startswith("data:")]


@pytest.mark.parametrize("form", ["static", "interactive"])
def test_it_is_small_asks_for_nothing_and_says_no_error(pages, browser, form):
    path = pages[form]
    assert path.stat().st_size < 5_000_000
    look(browser)
    begun = monotonic()
    browser.get(path.as_uri())
    took = monotonic() - begun
    assert browser.find_element("tag name", "h1").text == "small"
    charts = draw_all(browser)
    assert (charts > 10) == (form == "interactive")
    assert asked_for(browser) == [path.as_uri()]
    assert browser.get_log("browser") == []
    every = monotonic() - begun
    print(f"{form}: opened in {took:.2f} s, {charts} charts drawn after {every:.2f} s, {path.stat().st_size:,} bytes")


@pytest.mark.parametrize("form", ["static", "interactive"])
def test_its_numbers_are_those_of_the_summary(folder, pages, browser, form):
    look(browser)
    browser.get(pages[form].as_uri())
    rows = browser.execute_script("""
        const table = [...document.querySelectorAll("table")].find(
            (one) => one.caption && one.caption.textContent === "All figures");
        const heads = [...table.tHead.rows[0].cells].map((one) => one.textContent);
        return [...table.tBodies[0].rows].map((row) => Object.fromEntries([...row.cells].map((cell, at) => {
            const data = cell.querySelector("data");
            return [at ? heads[at] : "name", data ? Number(data.value) : cell.textContent.trim()];
        })));""")
    summary = json.loads((folder / "summary.json").read_text())
    nodes = summary["agents"] | summary["consensus"]
    assert {row["name"] for row in rows} == set(nodes) and len(summary["agents"]) == 30
    for row in rows:
        test = nodes[row["name"]]["metrics"]["test"]
        assert [row["test accuracy"], row["test loss"]] == [test["accuracy"], test["loss"]]


def test_without_scripts_the_charts_are_drawings(pages, browser):
    look(browser, scripts=False)
    browser.get(pages["interactive"].as_uri())
    drawings = browser.find_elements("css selector", "figure > svg.chart")
    assert len(drawings) > 10 and all(one.is_displayed() for one in drawings)
    assert not any(one.is_displayed() for one in browser.find_elements("css selector", ".live, #how, .spec"))
    assert browser.get_log("browser") == []


def test_charts_answer_to_the_pointer(pages, browser):
    from selenium.webdriver import ActionChains

    look(browser)
    browser.get(pages["interactive"].as_uri())
    draw_all(browser)
    figure = next(
        one
        for one in browser.find_elements("css selector", "figure.lines.drawn")
        if one.find_element("tag name", "figcaption").text == "Agreement and churn"
    )
    assert not figure.find_element("css selector", "svg.chart").is_displayed()
    live = figure.find_element("css selector", ".live")
    assert live.get_attribute("aria-label").startswith("Agreement and churn: 2 lines")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", live)
    ActionChains(browser).move_to_element(live).perform()
    said = until(browser, "const one = document.getElementById('pointed'); return one.hidden ? '' : one.textContent")
    name, _, rest = said.partition(": ")
    value, _, round_ = rest.partition(" at ")
    summary = json.loads((pages["interactive"].parent / "summary.json").read_text())
    told = next(one["metrics"] for one in summary["rounds"] if one["round"] == int(round_))
    assert float(value) == pytest.approx(told[name], rel=1e-4)
    line = "return arguments[0].querySelectorAll('.mark-line path')[0].getAttribute('opacity')"
    before = browser.execute_script(line, live)
    legend = next(one for one in live.find_elements("css selector", ".role-legend-label text") if one.text == "churn")
    ActionChains(browser).move_to_element(legend).click().perform()
    until(browser, f"{line} !== arguments[1]", live, before)
    ActionChains(browser).move_to_element(legend).click().perform()
    until(browser, f"{line} === arguments[1]", live, before)


@pytest.mark.parametrize("form", ["static", "interactive"])
@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_and_nothing_is_cut_off(pages, browser, form, width, scheme):
    look(browser, width, scheme)
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.get(pages[form].as_uri())
    draw_all(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    if not os.environ.get("KDMESH_AXE"):
        pytest.skip("KDMESH_AXE names no axe.min.js")
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.execute_script(Path(os.environ["KDMESH_AXE"]).read_text())
    found = browser.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in serious] == []
    assert len(found["passes"]) > 10
    print(f"axe, {form}, {width}, {scheme}: {[(one['id'], one['impact']) for one in found['violations']]}")
