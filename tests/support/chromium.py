# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium driven over its DevTools pipe, with the standard library alone."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--mute-audio",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-pipe",
)


def find() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Page:
    """One tab: `call` sends a command, `evaluate` runs script; `events` is what it said."""

    def __init__(self, reader: int, writer: int):
        self._reader, self._writer, self._buffer, self._count = reader, writer, b"", 0
        self._session, self.events = None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _receive(self, deadline: float) -> dict:
        while b"\0" not in self._buffer:
            if not select.select([self._reader], [], [], deadline - time.monotonic())[0]:
                raise TimeoutError("Chromium did not answer in time")
            piece = os.read(self._reader, 1 << 16)
            if not piece:
                raise EOFError("Chromium ended")
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, *, timeout: float = 60.0, **params) -> dict:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, script: str):
        """The value of an expression, awaited if it is a promise."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        while not self.evaluate(
            f"location.href == {json.dumps(url)} && document.readyState == 'complete'"
        ):
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """What the console, the log and the network reported as wrong."""
        wrong = []
        for event in self.events:
            params, method = event.get("params", {}), event.get("method")
            level = params.get("entry", {}).get("level") or params.get("type")
            if (
                method in {"Runtime.exceptionThrown", "Network.loadingFailed"}
                and not params.get("canceled")
            ) or (
                method in {"Log.entryAdded", "Runtime.consoleAPICalled"}
                and level in {"error", "warning"}
            ):
                wrong.append(json.dumps(params))
        return wrong


@contextlib.contextmanager
def browser(executable: str, profile: Path) -> Iterator[Page]:
    """A page in a browser with a new profile folder, ended with the block."""
    to_read, to_write = os.pipe(), os.pipe()

    def connect():  # Chromium reads commands from descriptor 3 and answers on 4
        # Two copies, so that neither end lies on 3 or 4 when these are overwritten.
        ends = os.dup(to_write[0]), os.dup(to_read[1])
        high = [os.dup(os.dup(end)) for end in ends]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    process = subprocess.Popen(
        [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=connect, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_write[0])
    os.close(to_read[1])
    try:
        yield Page(to_read[0], to_write[1])
    finally:
        os.close(to_write[1])  # Chromium ends with its pipe
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to_read[0])
