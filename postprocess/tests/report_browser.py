# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that looks at a report, for tests."""

import base64
import os
import tempfile
import time
import unittest
from pathlib import Path

try:
    from selenium import webdriver
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys  # noqa: F401
    from selenium.webdriver.support.ui import WebDriverWait
    lacking = None
except ModuleNotFoundError as error:
    if "DEKODER_TOOLBOX" in os.environ:  # which has it
        raise
    lacking = f"needs a browser: the Python package {error.name}, Chromium and its driver, as in the toolbox"
    Keys = WebDriverWait = None

DESKTOP = (1280, 900)
PHONE = (390, 844)


def skip_without():
    """Skips the tests of a module where no browser is."""
    if lacking:
        raise unittest.SkipTest(lacking)


def screenshot_folder():
    """Where screenshots are kept: the build's folder, else a temporary one."""
    base = os.environ.get("DEKODER_BINARY_DIR")
    folder = Path(base) / "report-screenshots" if base else Path(tempfile.gettempdir()) / "dekoder-report-screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Browser:
    """Opens pages from disk; `find` and `script` look into them."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--hide-scrollbars", "--force-color-profile=srgb"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._profile = tempfile.TemporaryDirectory()
        options.add_argument(f"--user-data-dir={self._profile.name}")
        service = webdriver.ChromeService("/usr/bin/chromedriver") if Path("/usr/bin/chromedriver").exists() else None
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(60)

    def close(self):
        self.driver.quit()
        self._profile.cleanup()

    def open(self, path, size=DESKTOP, dark=False):
        """Loads the page by file:// in a window of that many CSS pixels and waits until its maps are painted."""
        width, height = size
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1 if width > 600 else 2, "mobile": width <= 600})
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width <= 600})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        self.driver.get_log("browser")  # what an earlier page said
        self.driver.get(Path(path).resolve().as_uri())
        self.settle()

    def settle(self):
        """Waits until the page is there, and the maps of the chosen step where it has some."""
        wait = WebDriverWait(self.driver, 60)
        wait.until(lambda driver: driver.execute_script("return document.readyState === 'complete'"))
        wait.until(lambda driver: driver.execute_script(
            "const maps = document.getElementById('attention-body');"
            "return !maps || maps.hidden || document.body.dataset.step === document.getElementById('step').value"))

    def messages(self):
        """What the console has said since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")
                if entry["level"] in ("SEVERE", "WARNING")]

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).text

    def script(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def choose_step(self, place):
        """Moves the slider to that place as a hand does."""
        self.script("const s = document.getElementById('step'); s.value = arguments[0];"
                    "s.dispatchEvent(new Event('input', {bubbles: true}))", place)
        self.settle()

    def choose(self, selector, value):
        self.script("const s = document.querySelector(arguments[0]); s.value = arguments[1];"
                    "s.dispatchEvent(new Event('change', {bubbles: true}))", selector, str(value))
        self.settle()

    def media(self, name):
        """Shows the page as "print" or "screen" ("": as it is)."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": name})

    def hover_chart(self, selector, step):
        """Puts the pointer on the chart where that step is."""
        selector += " svg[tabindex]"
        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        x, y = self.script("const svg = document.querySelector(arguments[0]), b = svg.getBoundingClientRect();"
                           "const chart = allCharts.find((one) => one.place.contains(svg));"
                           "return [b.left + chart.x(arguments[1]), b.top + b.height / 2]", selector, step)
        self.move(x, y)

    def move(self, x, y):
        actions = ActionBuilder(self.driver)
        actions.pointer_action.move_to_location(round(x), round(y))
        actions.perform()

    def hover(self, panel, n, query, key):
        """Puts the pointer on a cell of the enlarged map `panel` (a, b or difference) of n tokens."""
        selector = f".panel[data-kind={panel}] canvas"
        self.script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        box = self.script("const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                          "return [b.left, b.top, b.width]", selector)
        x, y = (box[0] + (key + 0.5) * box[2] / n, box[1] + (query + 0.5) * box[2] / n)
        self.move(x, y)

    def tap(self, selector, x, y):
        """A short touch at that share of the element's width and height."""
        box = self.script("const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
                          "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", selector)
        point = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
        for kind, points in (("touchStart", [point]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def painted(self, selector):
        """The pixels of a canvas, as text."""
        return self.script("return document.querySelector(arguments[0]).toDataURL()", selector)

    def whole_map(self, run, probe, step, heads, tokens):
        """The float16 bits of (layer, head, query, key <= query) that the page holds."""
        return self.driver.execute_async_script(
            "const [run, probe, step, heads, n, done] = arguments;"
            "mapStore.load(run, probe, step, heads, n)"
            ".then((maps) => done(Array.from(maps.bits)), (error) => done(String(error)))",
            run, probe, step, heads, tokens)

    def overflow(self):
        """CSS pixels by which the page is wider than the window."""
        return self.script("return document.documentElement.scrollWidth - window.innerWidth")

    def screenshot(self, name, whole=True):
        """Saves the whole page, or what the window shows, as a PNG."""
        time.sleep(0.2)
        path = screenshot_folder() / f"{name}.png"
        if not whole:
            self.driver.save_screenshot(str(path))
            return path
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": {
            "x": 0, "y": 0, "scale": 1, "width": self.script("return window.innerWidth"),
            "height": self.script("return document.documentElement.scrollHeight")}})
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def print_pdf(self, name):
        """Prints the page as paper would show it."""
        pdf = self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False, "preferCSSPageSize": True})
        path = screenshot_folder() / f"{name}.pdf"
        path.write_bytes(base64.b64decode(pdf["data"]))
        return path
