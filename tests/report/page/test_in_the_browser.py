"""The page in a real browser: it opens at once, asks for nothing, and has no serious fault of accessibility."""

from __future__ import annotations

import json
import os
import shutil
from copy import deepcopy
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import save

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


@pytest.fixture
def path(runs) -> Path:
    """The page of a run of 30 agents and 20 rounds."""
    grow(runs["small"], 30, 20)
    save(runs["small"] / "report.html", page_of(runs["small"]))
    return runs["small"] / "report.html"


@pytest.fixture
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
    yield driver
    driver.quit()


def requests(browser) -> list[str]:
    """The addresses that were asked for."""
    told = (json.loads(one["message"])["message"] for one in browser.get_log("performance"))
    return [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]


def test_it_opens_at_once_is_small_and_asks_for_nothing(path, browser):
    assert path.stat().st_size < 5_000_000
    browser.get("about:blank")
    browser.get_log("performance")
    begun = monotonic()
    browser.get(path.as_uri())
    took = monotonic() - begun
    assert browser.find_element("tag name", "h1").text == "small"
    assert requests(browser) == [path.as_uri()]
    assert [one for one in browser.get_log("browser") if one["level"] == "SEVERE"] == []
    print(f"opened in {took:.2f} s, {path.stat().st_size:,} bytes")


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_and_nothing_is_cut_off(path, browser, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    if not os.environ.get("KDMESH_AXE"):
        pytest.skip("KDMESH_AXE names no axe.min.js")
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.execute_script(Path(os.environ["KDMESH_AXE"]).read_text())
    found = browser.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in serious] == []
    assert len(found["passes"]) > 10
