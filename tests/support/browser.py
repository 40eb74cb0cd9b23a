"""A headless Chromium over its debugging pipe: nothing to install, no port, no driver."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
EXECUTABLE = next((found for name in NAMES if (found := shutil.which(name))), None)
ABSENT = f"no browser here: none of {', '.join(NAMES)} on the path"


class Browser:
    """One page in one browser; `complaints` holds what its console, scripts and loader said."""

    def __init__(self, profile: Path, seconds: float = 60) -> None:
        """Start it with an empty profile; every answer must come within that many seconds."""
        assert EXECUTABLE is not None, ABSENT
        self.complaints: list[str] = []
        self._seconds, self._last, self._buffer = seconds, 0, b""
        self._events: list[dict[str, Any]] = []
        theirs_in, self._out = _high_pipe()
        self._in, theirs_out = _high_pipe()
        command = [
            EXECUTABLE, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-extensions", "--hide-scrollbars", "about:blank",
        ]  # fmt: skip
        # Chromium reads from descriptor 3 and writes to 4.
        shell = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, file: Path, fragment: str = "", *, scripts: bool = True) -> None:
        """Load a file, at a fragment, and wait until it is there; with or without its scripts."""
        self.send("Page.navigate", url="about:blank")  # else a fragment alone loads nothing
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._events.clear()
        self.send("Page.navigate", url=file.as_uri() + fragment)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()

    def download_to(self, folder: Path) -> None:
        """Let the page save files there."""
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")

    def view(self, width: int, *, height: int = 900, media: str = "screen") -> None:
        """Show the page at a width in CSS pixels, on a screen or as if it were printed."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send("Emulation.setEmulatedMedia", media=media)

    def screenshot(self, file: Path, selector: str = "body") -> None:
        """What is seen with an element at the top, as a PNG."""
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView()")
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        self.send("Emulation.setEmulatedMedia", media="")  # paper's own, whatever was asked of it
        printed = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(printed["data"])

    def _receive(self) -> dict[str, Any]:
        until = time.monotonic() + self._seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("the browser does not answer")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self._events.append(message)
            self._listen(message["method"], message["params"])
        return message

    def _listen(self, event: str, said: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        elif event == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(said["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(said["args"]))


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends are out of the way of the descriptors 3 and 4."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
