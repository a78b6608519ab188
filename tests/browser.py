"""A headless Chromium: opens pages on a light, dark or small screen, and says what they drew, asked for and raised.

It is spoken to over a pair of pipes in the DevTools protocol (https://chromedevtools.github.io/devtools-protocol):
JSON messages, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "google-chrome", "chromium-browser", "chrome")
_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--no-zygote",
    "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE_SECONDS = 60.0


def chromium_path() -> str | None:
    """As $CHROMIUM says, or the first that is on the path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


@dataclass(frozen=True)
class Screen:
    """What a page is shown on."""

    width: int
    height: int
    scheme: str = "light"

    @property
    def is_phone(self) -> bool:
        return self.width < 500


class Browser:
    """A running Chromium; made by `chromium`."""

    def __init__(self, asks: int, answers: int) -> None:
        self._asks, self._answers = asks, answers
        self._number = 0
        self._unread = b""
        self.told: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for what it returns; events that come before go to `told`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._asks, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (said := self._next()).get("id") != self._number:
            self.told.append(said)
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    def wait_for(self, event: str) -> None:
        """Until it was told since `told` was cleared."""
        while not any(said.get("method") == event for said in self.told):
            self.told.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            assert select.select([self._answers], [], [], _PATIENCE_SECONDS)[0], "Chromium does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium has ended"
            self._unread += part
        said, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(said)
        return message

    def has_started(self) -> bool:
        """Whether it answers: a package may have put a program there that only tells of another package."""
        try:
            return bool(self.ask("Browser.getVersion"))
        except (AssertionError, BrokenPipeError):
            return False


class Tab:
    """A page in a browser."""

    def __init__(self, browser: Browser) -> None:
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._browser = browser
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Of this page."""
        return self._browser.ask(method, self._session, **parameters)

    def show_on(self, screen: Screen) -> None:
        """What is open is drawn anew."""
        size = {"width": screen.width, "height": screen.height, "deviceScaleFactor": 1, "mobile": screen.is_phone}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": screen.scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])
        # two frames later everything that a change of size or scheme set off has been drawn
        self.evaluate("new Promise(then => requestAnimationFrame(() => requestAnimationFrame(then)))")

    def open(self, path: Path) -> list[str]:
        """Open a file, until it is loaded; the addresses that it asked for, itself left out."""
        self._browser.told.clear()
        self.ask("Page.navigate", url=path.as_uri())
        self._browser.wait_for("Page.loadEventFired")
        requests = (said for said in self._browser.told if said.get("method") == "Network.requestWillBeSent")
        addresses = [request["params"]["request"]["url"] for request in requests]
        return [address for address in addresses if address != path.as_uri()]

    def complaints(self) -> list[str]:
        """What was raised, logged or printed on the console since the page was opened."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(said["params"]) for said in self._browser.told if said.get("method") in kinds]

    def evaluate(self, script: str) -> Any:
        """What a JavaScript expression is; a promise is waited for."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> bytes:
        """What is seen, or all of the page, as a PNG."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole, fromSurface=True)["data"]
        return base64.b64decode(data)

    def print(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False)["data"])


@contextmanager
def chromium(program: str, folder: Path) -> Iterator[Browser]:
    """Start one, and end it and what it started.

    Args:
        program: As `chromium_path` found it.
        folder: Empty; for its profile and temporary files.
    """
    asked, asks = _pipe()
    answers, answered = _pipe()
    pid = os.posix_spawn(
        program,
        [program, *_ARGUMENTS, f"--user-data-dir={folder}", "about:blank"],
        {**os.environ, "TMPDIR": str(folder), "HOME": str(folder)},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, asked, 3),
            (os.POSIX_SPAWN_DUP2, answered, 4),
            (os.POSIX_SPAWN_OPEN, 2, str(folder / "errors"), os.O_WRONLY | os.O_CREAT, 0o600),
        ],
        setpgroup=0,
    )
    _close(asked, answered)
    try:
        yield Browser(asks, answers)
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _close(asks, answers)


def _pipe() -> Sequence[int]:
    """Ends that are not 3 or 4, and that no child inherits."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    _close(*ends)
    return moved


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
