"""The page in a browser: typed into, clicked, without a mouse, on a phone, without a server."""

import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from seqrec_export.clients.python import Client
from seqrec_export.exporting.exported import Exported
from seqrec_export.serving.server import Server
from support.browser import chromium, until
from support.relay import Relay
from support.served import EMBEDDED

MODELS = ("sasrec", "two_tower", "gru4att", "mlink")
ODD = "<img src=x onerror=alert(1)>"  # the title of the second item
GROUP = "garment_group_name"


@dataclass
class Shop:
    """What is known of the small models' items, and where they are served."""

    runs: Path
    titles: Path
    url: str
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return list(self.groups)

    def title(self, item: str) -> str:
        i = self.ids.index(item)
        return ODD if i == 1 else f"{self.groups[item]} no. {i}"

    def of_group(self, group: str) -> set[str]:
        return {item for item, of in self.groups.items() if of == group}


@pytest.fixture(scope="module")
def shop(
    exports: Callable[[str], Exported],
    tritons: Callable[[str], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Shop:
    runs = {name: exports(name).run.path for name in MODELS}
    run = runs["sasrec"]
    table = pq.read_table(run / "onnx" / "attributes.parquet").to_pydict()
    groups = {i: of[0] for i, of in zip(table["item_id"], table[GROUP], strict=True)}
    titles = tmp_path_factory.mktemp("playground") / "titles.csv"
    shop = Shop(run.parent, titles, tritons(EMBEDDED).grpc_url, groups)
    with titles.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title"])
        writer.writerows([item, shop.title(item)] for item in shop.ids)
    return shop


@pytest.fixture(scope="module")
def relay(shop: Shop) -> Iterator[Relay]:
    with Relay(shop.url) as relay:
        relay.start()
        yield relay


@pytest.fixture(scope="module")
def address(shop: Shop, relay: Relay) -> Iterator[str]:
    """Where the command itself has put the page."""
    told = ["--url", relay.url, "--titles", shop.titles, "--runs", shop.runs, "--port", "0"]
    command = [Path(sys.executable).with_name("seqrec-export"), "playground", *told]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


class Page:
    """What somebody sees of it, and does."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, state: str = "") -> "Page":
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}#{state}")
        self.answered()
        return self

    def all(self, css: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", css))

    def one(self, css: str) -> Any:
        return until(self.driver, lambda _: next(iter(self.all(css)), None))

    def labelled(self, text: str) -> Any:
        label = self.driver.find_element("xpath", f"//label[normalize-space()='{text}']")
        return self.driver.find_element("id", label.get_attribute("for"))

    def answered(self, ready: Callable[["Page"], Any] | None = None) -> None:
        """Wait until there is an answer, to what was done last."""
        ready = ready or (lambda page: page.said() or page.problem())
        until(self.driver, lambda _: ready(self))

    def said(self) -> str:
        return " ".join(element.text for element in self.all(".pane .said"))

    def problem(self) -> str:
        return self.one("#why").text

    def shown(self, pane: int = 0) -> list[str]:
        items = self.all(".pane > .items")[pane].find_elements("css selector", "li")
        return [item.get_attribute("data-id") for item in items]

    def chosen(self, label: str) -> list[str]:
        return [e.text for e in self.all(f"[aria-label='{label}: chosen'] code")]

    def type(self, *keys: str) -> None:
        """To whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()


@pytest.fixture
def page(driver: Any, address: str) -> Page:
    return Page(driver, address)


def test_ten_items_obey_the_filter_that_was_typed_and_clicked(page: Page, shop: Shop) -> None:
    page.open(".model=sasrec")
    bought, group = shop.ids[5], "Trousers"
    page.labelled("History, oldest first").send_keys(f"{shop.groups[bought]} NO. 5")
    page.one("[role=option]").click()
    page.answered(lambda p: p.chosen("History, oldest first") == [bought])
    page.labelled("Only of garment group name").send_keys(group[:4])
    page.one("[role=option][aria-selected=true]").click()
    page.answered(lambda p: "from sasrec_filtered" in p.said())
    with Client(shop.url) as client:
        row = {"history_item_ids": [bought], f"allow_{GROUP}": [group]}
        (answer,) = client.call("sasrec_filtered", [row])
    ids: Any = answer["item_ids"]
    assert page.shown() == [item for item in ids if item][:10]
    assert set(page.shown()) <= shop.of_group(group)
    assert bought not in page.shown()
    first = page.one(".items li").text
    assert f"{group} no. " in first
    assert page.shown()[0] in first
    assert "Ids that the model knew: 1." in page.said()


def test_all_of_it_goes_without_a_mouse(page: Page, shop: Shop) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(".model=sasrec&.top=5")
    ways = ["Copy link", "Clear", "Ask", "Compare with", "Items to show", "History, oldest first"]
    for way in ways:
        page.type(Keys.TAB)
        focused = page.driver.switch_to.active_element
        assert way in (focused.text, focused.accessible_name)
    page.type("swimwear no. ", Keys.ARROW_DOWN)
    second = page.one("[role=option][aria-selected=true] code").text
    assert focused.get_attribute("aria-expanded") == "true"
    page.type(Keys.ENTER)
    page.answered(lambda p: p.chosen("History, oldest first") == [second])
    page.type("trou", Keys.ESCAPE)
    assert focused.get_attribute("aria-expanded") == "false"
    page.type(*[Keys.BACKSPACE] * 5)  # the last of them takes away what was chosen
    page.answered(lambda p: p.chosen("History, oldest first") == [])
    page.type(Keys.TAB)
    assert page.driver.switch_to.active_element.accessible_name == "Exclude these items"
    best = page.shown()[0]
    page.type(best, Keys.ENTER)  # at once, before anything is suggested
    page.answered(lambda p: "sasrec_filtered" in p.said() and best not in p.shown())
    for _ in range(20):
        page.type(Keys.TAB)
        focused = page.driver.switch_to.active_element
        if focused.accessible_name.startswith("Items similar to"):
            break
    page.type(Keys.ENTER)
    page.answered(lambda p: p.all(".similar"))
    heading = until(page.driver, lambda d: d.switch_to.active_element.text)
    assert heading == f"Similar to {shop.title(page.shown()[0])}"


def test_text_from_elsewhere_stays_text(page: Page, shop: Shop) -> None:
    page.open(f".model=sasrec&.top=100&history_item_ids={shop.ids[1]}&keep_seen=1")
    page.labelled("Exclude these items").send_keys("<IMG")
    assert ODD in page.one("[role=option]").text
    page.labelled("Exclude these items").clear()
    page.answered(lambda p: ODD in p.one(".picker .chosen").text)
    assert page.all("img") == []
    assert page.driver.get_log("browser") == []
    loaded = "return performance.getEntriesByType('resource').map((found) => found.name)"
    found = page.driver.execute_script(loaded)
    assert len(found) > 5
    assert all(name.startswith(page.address) for name in found)


def test_it_says_what_was_known_and_what_was_left_out(page: Page, shop: Shop) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(".model=sasrec")
    page.labelled("History, oldest first").send_keys("no such item", Keys.ENTER)
    page.answered(lambda p: "Unknown in “History, oldest first”: no such item." in p.said())
    assert "this is its cold start" in page.said()
    assert "no such item unknown" in page.one(".strange").text
    page.all(".items [data-key*='history_item_ids']")[3].click()
    page.answered(lambda p: "Ids that the model knew: 1." in p.said())
    known = page.chosen("History, oldest first")[1]
    assert "What the history holds is left out." in page.said()
    assert known not in page.shown()
    page.labelled("What the history holds may come back").click()
    page.answered(lambda p: "left out" not in p.said())
    page.labelled("Only these items").send_keys(known, Keys.ENTER)
    page.answered(lambda p: p.shown() == [known])


def test_the_link_holds_it_all(page: Page, shop: Shop) -> None:
    odd = "a&b=c#d/ü"
    group = shop.groups[shop.ids[7]]
    page.open(".model=gru4att")
    page.labelled("History, oldest first").send_keys(shop.ids[7] + "\n")
    page.answered(lambda p: len(p.chosen("History, oldest first")) == 1)
    page.labelled("History, oldest first").send_keys(odd + "\n")
    page.answered(lambda p: "Unknown in" in p.said())
    page.one("input[aria-label^='history event types of']").send_keys("buy")
    page.one("input[aria-label='history gap days of a&b=c#d/ü']").send_keys("2.5")
    page.labelled("Only of garment group name").send_keys(group + "\n")
    page.answered(lambda p: "from gru4att_filtered" in p.said())
    page.one(".items [data-key*=similar]").click()
    page.one("#with option[value=sasrec]").click()
    page.answered(lambda p: len(p.all(".similar")) == 2)
    link, seen = page.driver.current_url, [page.shown(0), page.shown(1)]
    assert seen[0] != seen[1]
    assert {*seen[0], *seen[1]} <= shop.of_group(group)
    page.driver.get("about:blank")
    page.driver.get(link)
    page.answered(lambda p: len(p.all(".similar")) == 2)
    assert [page.shown(0), page.shown(1)] == seen
    assert page.chosen("History, oldest first") == [shop.ids[7], odd]
    values = [e.get_attribute("value") for e in page.all(".chosen input")]
    assert values == ["buy", "", "", "2.5"]
    assert "Not for this model, and not sent: history event types" in page.said()
    assert page.driver.current_url == link
    page.driver.get("about:blank")
    page.open(".model=gone")  # the first one answers instead
    page.answered(lambda p: p.one("#why").text == "Not served: gone.")


def test_models_with_other_inputs_are_asked_as_their_contract_says(page: Page, shop: Shop) -> None:
    page.open(".model=two_tower")
    page.labelled("age").send_keys("20")
    page.labelled("month").send_keys("7")
    page.labelled("user id").send_keys("u0000001")
    with Client(shop.url) as client:
        row = {"age": 20.0, "month": 7, "user_id": "u0000001"}
        ((ranked),) = client.recommend("two_tower", [row], 10)
        rated, unknown = shop.ids[:3], "nothing"
        history = {"history_item_ids": [shop.ids[9]], "history_ratings": [4.5]}
        (stars,) = client.score("mlink", [{**history, "candidate_ids": rated}])
    page.answered(lambda p: p.shown() == [item for item, _ in ranked])
    candidates = "&".join(f"candidate_ids={item}" for item in [*rated, unknown])
    page.open(f".model=mlink&history_item_ids={shop.ids[9]}&history_ratings=4.5&{candidates}")
    best = sorted(zip(stars, rated, strict=True), reverse=True)
    page.answered(lambda p: p.all(".items li"))
    assert page.shown() == [*(item for _, item in best), unknown]
    assert [e.text for e in page.all(".score")] == [*(f"{star:.4f}" for star, _ in best), "unknown"]


def test_a_phone_shows_it_without_scrolling_sideways(page: Page, shop: Shop) -> None:
    small = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", small)
    try:
        long = "W" * 300
        page.open(
            f".model=gru4att&.with=sasrec&.similar={shop.ids[3]}&history_item_ids={shop.ids[4]}"
            f"&history_item_ids={long}&exclude_item_ids={shop.ids[5]}&keep_seen=1"
        )
        page.answered(lambda p: len(p.all(".similar")) == 2)
        widths = "return [document.documentElement.scrollWidth, document.body.scrollWidth]"
        assert page.driver.execute_script(widths) == [390, 390]
        beyond = """return [...document.querySelectorAll("main *")].filter(
            (e) => e.getBoundingClientRect().right > 390).map((e) => e.outerHTML)"""
        assert page.driver.execute_script(beyond) == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_says_that_the_server_is_down_and_goes_on_when_it_is_back(
    page: Page, shop: Shop, relay: Relay
) -> None:
    page.open(".model=sasrec")
    relay.stop()
    try:
        page.labelled("History, oldest first").send_keys(shop.ids[2] + "\n")
        page.answered(lambda p: "no server answers there" in p.problem())
        assert relay.url in page.problem()
        assert page.one("#problem").is_displayed()
        assert page.all(".items") == []
    finally:
        relay.start()
    page.one("#again").click()
    page.answered(lambda p: "Ids that the model knew: 1." in p.said())
    assert not page.one("#problem").is_displayed()
    assert page.chosen("History, oldest first") == [shop.ids[2]]
