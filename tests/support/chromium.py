"""A real browser: Debian's Chromium without a screen, with nothing running in its background, and a profile of its own."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

_FLAGS = """--headless=new --disable-gpu --disable-quic --no-first-run --no-default-browser-check --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --disable-default-apps --disable-dev-shm-usage --metrics-recording-only
--password-store=basic --disable-features=OptimizationHints,MediaRouter,PasswordLeakDetection""".split()


def missing() -> str | None:
    """In one line what this machine lacks; None: nothing."""
    lacks = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"tests in a real browser need {' and '.join(lacks)}" if lacks else None


@contextlib.contextmanager
def running_chromium() -> Iterator[webdriver.Chrome]:
    """Driven by its own driver: Selenium fetches nothing."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    # Its sandbox does not run as root.
    flags = [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with tempfile.TemporaryDirectory(prefix="xzepr-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in [*flags, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(executable_path=str(shutil.which("chromedriver"))))
        driver.set_page_load_timeout(60)
        try:
            yield driver
        finally:
            driver.quit()
