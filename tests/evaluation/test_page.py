"""The folder of results, and its page in a browser: no error, no request, all pictures there, reachable by keyboard."""

import csv
import json

import pyarrow.parquet as pq
import pytest
import torch

from facerecon_torch.commands.own_files import is_own
from facerecon_torch.evaluation.output import write_evaluation, write_metrics
from facerecon_torch.evaluation.sections.registry import SECTIONS
from tests.browser import open_browser


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("a report, öpened")
    generator = torch.Generator().manual_seed(0)
    write_metrics(folder, {"full": study}, {"seed": 0}, generator)
    sections = [build(study, generator) for build in SECTIONS.values()]
    write_evaluation(folder, "Evaluation <of> tests", {"protocol": study.protocol}, sections)
    return folder


def test_the_folder_holds_the_same_numbers_thrice(folder, study):
    document = json.loads((folder / "metrics.json").read_text())["studies"]["full"]
    mean = document["methods"]["ours"]["mae_mm"]["none"]["M"]["whole"]
    lines = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    (line,) = [own for own in lines if own["method"] == "ours" and own["class"] == "all"]
    assert float(line["mae_none_M_whole"]) == pytest.approx(mean, rel=1e-5)
    assert {own["class"] for own in lines} == {"all", "N", "E", "LFAU", "UFAU", "YR", "PR", "CR", "O"}
    table = pq.read_table(folder / "images.parquet").to_pylist()
    ours = [row for row in table if row["method"] == "ours"]
    assert len(table) == 3 * len(study.tested)
    assert sum(row["mae_none_M_whole"] for row in ours) / len(ours) == pytest.approx(mean, rel=1e-5)
    assert all(is_own(folder / name) for name in ("metrics.json", "images.parquet", "report.html"))


def test_the_page_escapes_and_names_no_address(folder):
    text = (folder / "report.html").read_text()
    assert "Evaluation &lt;of&gt; tests" in text
    assert "http://" not in text
    assert "https://" not in text
    assert len(list((folder / "figures").glob("*.png"))) == text.count("<img ")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium without a network of its own."""
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def _requests(driver, page: str) -> list[str]:
    """The addresses that a page has asked for since the last call, without its own and data inside it."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    addresses = [p["request"]["url"] for p in sent if p["documentURL"] == page]
    return [address for address in addresses if address != page and not address.startswith("data:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_from_disk(folder, browser, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    address = (folder / "report.html").as_uri()
    browser.get(address)
    assert _requests(browser, address) == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    images = browser.execute_script(
        "return [...document.images].map(i => i.complete && i.naturalWidth > 0 && i.alt.length > 0)"
    )
    assert images
    assert all(images)
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_a_request_would_be_seen(folder, browser, tmp_path):
    text = (folder / "report.html").read_text()
    page = tmp_path / "with_a_request.html"
    policy = text[text.index('<meta http-equiv="Content') :].partition("\n")[0]
    page.write_text(text.replace(policy, '<link rel="stylesheet" href="http://127.0.0.1:9/none.css">'))
    browser.get(page.as_uri())
    assert _requests(browser, page.as_uri()) == ["http://127.0.0.1:9/none.css"]


def test_tab_reaches_links_and_tables(folder, browser):
    from selenium.webdriver.common.keys import Keys

    browser.get((folder / "report.html").as_uri())
    reached = []
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            browser.switch_to.active_element.get_attribute("class") or browser.switch_to.active_element.tag_name
        )
    assert reached[0] == "skip"
    assert reached.count("a") >= len(SECTIONS)
    tables = browser.execute_script("return document.querySelectorAll('table').length")
    assert reached.count("wide") >= tables
