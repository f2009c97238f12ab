"""Headless Chromium for tests of pages."""

import os
import shutil
from pathlib import Path

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,2400",
)  # fmt: skip


def open_browser(profile: Path, *flags: str):
    """A browser without a network of its own; skips the test where none is installed, unless one is required."""
    from selenium import webdriver as selenium

    chrome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_path = shutil.which("chromedriver")
    if chrome is None or driver_path is None:
        assert os.environ.get("FACERECON_BROWSER") != "required", "chromium and chromedriver must be installed here"
        pytest.skip("chromium and chromedriver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = chrome
    for flag in (*_FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return selenium.Chrome(options=options, service=selenium.ChromeService(driver_path))
