"""Chromium as a person uses it, by the W3C WebDriver protocol of its chromedriver."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.commands import free_port

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "" if BROWSER and DRIVER else "needs Chromium and its driver: apt-get install chromium chromium-driver"
# Without a display, without a graphics card (WebGL by software), without asking anybody on the network.
QUIET = ["--headless=new", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-extensions"]
QUIET += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1280,1000"]


class Browser:
    """One window; `downloads` is the folder of what is saved from it."""

    def __init__(self, port: int, downloads: Path):
        self._base, self.downloads = f"http://localhost:{port}", downloads
        prefs = {"download.default_directory": str(downloads)}
        options = {"binary": BROWSER, "args": [*QUIET, f"--user-data-dir={downloads}/profile"], "prefs": prefs}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        for _ in range(100):
            with contextlib.suppress(OSError):
                self._base += f"/session/{self._ask('POST', '/session', {'capabilities': wanted})['sessionId']}"
                return
            time.sleep(0.1)
        raise RuntimeError("chromedriver does not answer")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        """Opens an address, even one that differs from the last only behind #."""
        self._ask("POST", "/url", {"url": "about:blank"})
        self._ask("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """Result of a script, which may return a promise."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, seconds: float = 20) -> Any:
        """Value of an expression, as soon as it is truthy."""
        end = time.monotonic() + seconds
        while not (found := self.run(f"return {condition}")):
            assert time.monotonic() < end, condition
            time.sleep(0.05)
        return found

    def mouse(self, *steps: tuple[str, int, int]) -> None:
        """`move`, `down` or `up` at places of the window in pixels."""
        actions: list[dict[str, Any]] = []
        for what, x, y in steps:
            actions.append({"type": "pointerMove", "duration": 100, "x": x, "y": y})
            actions += [{"type": f"pointer{what.capitalize()}", "button": 0}] if what != "move" else []
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._ask("POST", "/actions", {"actions": [pointer]})

    def seconds(self) -> float:
        """Processor time of the main thread of the page; each opening has a process of its own."""
        found = self._ask("POST", "/goog/cdp/execute", {"cmd": "Performance.getMetrics", "params": {}})["metrics"]
        return {x["name"]: x["value"] for x in found}["TaskDuration"]

    def count_seconds(self) -> None:
        """Has `seconds` counted from now on, by the clock of the thread, which other work does not move."""
        enable = {"cmd": "Performance.enable", "params": {"timeDomain": "threadTicks"}}
        self._ask("POST", "/goog/cdp/execute", enable)

    def saved(self, name: str) -> str:
        """A file that was saved, as soon as it is whole."""
        for _ in range(200):
            if (self.downloads / name).is_file() and not list(self.downloads.glob("*.crdownload")):
                return (self.downloads / name).read_text()
            time.sleep(0.05)
        raise AssertionError(f"{name} was not saved; there is {[p.name for p in self.downloads.iterdir()]}")

    def complaints(self) -> list[str]:
        """Errors in the console since the last call."""
        return [x["message"] for x in self._ask("POST", "/se/log", {"type": "browser"}) if x["level"] == "SEVERE"]

    def picture(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def close(self) -> None:
        self._ask("DELETE", "")


@contextlib.contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A window that is closed at the end."""
    assert DRIVER
    port = free_port()
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        window = Browser(port, downloads)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait(timeout=20)
