"""Chromium for the tests of the page: `python tests/browser.py` finds one that starts, or installs one."""

import os
import shutil
import subprocess
import sys

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

NO_BROWSER = "no browser starts: put a Chromium on the PATH, or run `python -m playwright install chromium`"

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
SECONDS = 300  # limit for each command


def launch(playwright: Playwright) -> tuple[Browser, str] | None:
    """Return the first browser that starts and its description, or None. The PATH comes before Playwright's own."""
    for program in [*filter(None, map(shutil.which, NAMES)), None]:
        try:
            # Chromium's sandbox needs privileges that containers lack.
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=60_000)
        except Error:  # missing, or only a stub for a snap, or without its libraries
            continue
        return browser, f"{program or 'Playwright'}'s Chromium {browser.version}"
    return None


def ways_to_get_one() -> dict[str, list[list[str]]]:
    """Return the ways to install a browser, in order, each with its commands."""
    module = [sys.executable, "-m", "playwright"]
    ways = {"Playwright's download": [[*module, "install", "--only-shell", "chromium"]]}
    if hasattr(os, "geteuid") and shutil.which("apt-get"):
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]  # never asks for a password
        apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
        install = [*apt, "install", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
        ways["apt-get install chromium"] = [[*apt, "update"], install]
        # Ubuntu's package is a stub, but its dependencies let Playwright's browser start.
        ways["the libraries for Playwright's download"] = [[*root, *module, "install-deps", "chromium"]]
    return ways


def succeeds(command: list[str]) -> bool:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run(command, check=False, timeout=SECONDS, **quiet).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_or_get() -> str:
    """Find or install a browser; return one line that says which the tests will use, or that there is none."""
    with sync_playwright() as playwright:
        if found := launch(playwright):
            return f"Browser: {found[1]}"
        for way, commands in ways_to_get_one().items():
            print(f"Browser: none starts; trying {way}, at most {SECONDS} seconds per command", flush=True)
            if all(map(succeeds, commands)) and (found := launch(playwright)):
                return f"Browser: {found[1]}, installed by {way}"
    return f"Browser: the tests of the page will be skipped, {NO_BROWSER}"


if __name__ == "__main__":
    print(find_or_get(), flush=True)
