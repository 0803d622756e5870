"""Debian's Chromium without a window, as somebody uses it who reads, types and clicks."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

MISSING = (
    "no browser: {} is missing; apt-get install chromium chromium-driver, and the extra dev of"
    " seqrec-export"
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A driver of a new profile; skips the test if there is no Chromium, which CI must have."""
    try:
        from selenium import webdriver
    except ModuleNotFoundError:
        absent("selenium")
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            absent(program)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # Neither root nor a container has what its sandbox needs, and it opens the tested page only.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        driver.set_window_size(1280, 900)
        yield driver
    finally:
        driver.quit()


def absent(program: str) -> None:
    """Skip, or fail if what is tested in CI has to be there."""
    (pytest.fail if os.environ.get("REQUIRE_CLIENTS") else pytest.skip)(MISSING.format(program))


def until(driver: Any, true: Callable[[Any], Any], seconds: float = 30) -> Any:
    """What `true` gives once it is true."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    ignored = (StaleElementReferenceException,)
    wait = WebDriverWait(driver, seconds, poll_frequency=0.02, ignored_exceptions=ignored)
    return wait.until(true)
