"""A headless Chromium, spoken to over the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--window-size=1200,900",
    "--remote-debugging-pipe",
)


def chromium() -> str | None:
    """Where Debian's Chromium is, None where there is none."""
    return shutil.which("chromium")


class Browser:
    """A browser with one page, ended with the block."""

    def __init__(self, program: str, profile: Path) -> None:
        self._argv = [program, *FLAGS, f"--user-data-dir={profile}"]
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._session = ""

    def __enter__(self) -> Browser:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        script = f'exec 3<&{commands} 4>&{answers}; exec "$@"'
        argv = ["bash", "-c", script, "bash", *self._argv]
        self._process = subprocess.Popen(
            argv, pass_fds=(commands, answers), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self._reader = open(self._answers, "rb")
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.close()
        os.close(self._commands)

    def open(self, url: str) -> None:
        """Load a page and wait until it is there."""
        self._events.clear()
        self._call("Page.navigate", url=url)
        self._await("Page.loadEventFired")

    def click(self, selector: str) -> None:
        """Press and release the mouse on an element that leads to another page, and wait for that."""
        x, y, wide, high = self.box(selector)
        where = {"x": x + wide / 2, "y": y + high / 2, "button": "left", "clickCount": 1}
        self._events.clear()
        self._call("Input.dispatchMouseEvent", type="mousePressed", **where)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", **where)
        self._await("Page.loadEventFired")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Where an element is: left, top, width, height."""
        found = self.value(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x, box.y, box.width, box.height] })()"
        )
        return tuple(found)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def screenshot(self, selector: str) -> bytes:
        """What is seen of an element, as PNG."""
        x, y, wide, high = self.box(selector)
        clip = {"x": x, "y": y, "width": wide, "height": high, "scale": 1}
        return base64.b64decode(self._call("Page.captureScreenshot", format="png", clip=clip)["data"])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _await(self, event: str) -> None:
        while not any(each.get("method") == event for each in self._events):
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._reader.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        message: dict[str, Any] = json.loads(text)
        return message
