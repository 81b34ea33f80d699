"""How the page behaves in a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")


@pytest.fixture(scope="module")
def browser(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium with the page open."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("no Chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    path = profile / "page.html"
    path.write_text(page, encoding="utf8")
    driver.get(path.as_uri())
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


def shown(browser: Any) -> list[str]:
    """The first line of each error that can be seen."""
    errors = browser.find_elements("css selector", ".errors li")
    return [error.text.split("\n")[0] for error in errors if error.is_displayed()]


def open_details(browser: Any) -> None:
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")


def choose(browser: Any, name: str, option: str) -> None:
    select = browser.find_element("css selector", f"select[name={name}]")
    next(each for each in select.find_elements("css selector", "option") if each.text == option).click()


def test_filters(browser: Any) -> None:
    everything = ["Record 2 missed", "Record 3 spurious", "Record 4 wrong boundary", "Record 5 wrong type"]
    assert shown(browser) == everything
    status = browser.find_element("id", "status")
    assert (status.text, status.aria_role) == ("4 of 4 shown", "status")
    choose(browser, "type", "Drug")
    assert shown(browser) == ["Record 2 missed", "Record 5 wrong type"]
    choose(browser, "kind", "missed")
    assert shown(browser) == ["Record 2 missed"]
    assert status.text == "1 of 4 shown"
    choose(browser, "type", "Sign")
    assert shown(browser) == []
    browser.find_element("css selector", "button[type=reset]").click()
    assert shown(browser) == everything


def test_gold_stands_beside_predicted(browser: Any) -> None:
    error = browser.find_elements("css selector", ".errors li")[2]
    gold, found = error.find_elements("css selector", ".sides > div")
    marked = [side.find_element("css selector", "mark.wrong").text for side in (gold, found)]
    assert marked == ["severe painSign", "painSign"]
    assert gold.location["y"] == found.location["y"]


def test_controls_and_charts_have_names(browser: Any) -> None:
    open_details(browser)
    controls = browser.find_elements("css selector", "select, button, a, [tabindex], svg[role]")
    assert len(controls) > 15
    assert [each.get_attribute("outerHTML") for each in controls if not each.accessible_name] == []
    tables = browser.find_elements("css selector", "table")
    assert all(each.find_elements("css selector", "caption") for each in tables)
    assert not browser.find_elements("css selector", "th:not([scope])")


@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_does_not_scroll_sideways(browser: Any, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    open_details(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_all_is_there_without_javascript(browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.refresh()
    assert len(shown(browser)) == 4
    assert not browser.find_element("id", "filter").is_displayed()
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_no_complaint_and_no_request(browser: Any) -> None:
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    asked = {each["request"]["url"] for each in requests if each["documentURL"] == browser.current_url}
    assert asked <= {browser.current_url, "data:,"}
