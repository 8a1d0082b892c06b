"""A Chromium for the tests of the page: `python tests/browser.py` finds one that starts, or gets one."""

import os
import shutil
import subprocess
import sys

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

NO_BROWSER = "no browser: put a Chromium that starts on the PATH, or run `python -m playwright install chromium`"

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
SECONDS = 300  # for each attempt to get one


def launch(playwright: Playwright) -> tuple[Browser, str] | None:
    """The first browser that starts, and what it is; those on the PATH come before Playwright's own."""
    for program in [*filter(None, map(shutil.which, NAMES)), None]:
        try:
            # A sandbox of its own needs rights that a container has not.
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=60_000)
        except Error:  # not there, or only a stub of a snap, or its libraries are missing
            continue
        return browser, f"{program or 'Playwright'}'s Chromium {browser.version}"
    return None


def ways_to_get_one() -> dict[str, list[list[str]]]:
    """What is tried in this order, each by its commands."""
    module = [sys.executable, "-m", "playwright"]
    ways = {"Playwright's download": [[*module, "install", "--only-shell", "chromium"]]}
    if hasattr(os, "geteuid") and shutil.which("apt-get"):
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]  # without a password, or not at all
        apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
        install = [*apt, "install", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
        ways["apt-get install chromium"] = [[*apt, "update"], install]
        # Ubuntu's package is a stub, but its libraries let Playwright's own start.
        ways["the libraries for Playwright's download"] = [[*root, *module, "install-deps", "chromium"]]
    return ways


def succeeds(command: list[str]) -> bool:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run(command, check=False, timeout=SECONDS, **quiet).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_or_get() -> str:
    """What the tests of the page will use, or that there is none."""
    with sync_playwright() as playwright:
        if found := launch(playwright):
            return f"Browser: {found[1]}"
        for way, commands in ways_to_get_one().items():
            print(f"Browser: none that starts; trying {way}, at most {SECONDS} seconds a command", flush=True)
            if all(map(succeeds, commands)) and (found := launch(playwright)):
                return f"Browser: {found[1]}, by {way}"
    return f"Browser: the tests of the page will be skipped, {NO_BROWSER}"


if __name__ == "__main__":
    print(find_or_get(), flush=True)
