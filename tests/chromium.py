"""A headless Chromium, driven through its DevTools protocol over a pipe, for the test of the page."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 60  # seconds for an answer, on a busy machine
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def working(command):
    """Whether this is a browser that starts, and not what some systems have in its place."""
    return subprocess.run([command, "--version"], capture_output=True, timeout=PATIENCE).returncode == 0


FOUND = os.environ.get("CHROMIUM") or next(filter(working, filter(None, map(shutil.which, NAMES))), None)
KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
TEXT = {"Enter": "\r", "Space": " "}  # what a key types
OWN = ("file:", "data:", "about:")  # what a page may load that asks the network for nothing
OPTIONS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-extensions", "--hide-scrollbars",
    "--force-color-profile=srgb",
)  # fmt: skip


class Browser:
    """One browser with one page; ends with the block.

    Attributes:
        complaints: what the page wrote to the console as a warning or an error, exceptions, and requests.
    """

    def __init__(self, folder: Path):
        down, to_browser = os.pipe()
        from_browser, up = os.pipe()
        # It reads commands from descriptor 3 and answers on 4.
        start = f"import os, sys; os.dup2({down}, 3); os.dup2({up}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", start, FOUND, *OPTIONS, f"--user-data-dir={folder}"]
        self.log = open(folder / "log.txt", "w")  # noqa: SIM115
        self.process = subprocess.Popen(command, pass_fds=(down, up), stdout=self.log, stderr=self.log)
        os.close(down), os.close(up)
        self._to, self._from, self._rest, self._number = to_browser, from_browser, b"", 0
        self.complaints: list[str] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._to), os.close(self._from)
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()

    def call(self, method, **parameters):
        """What a command of the protocol answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def open(self, path: Path, width=1280, height=900, scheme="light"):
        """Show a file in a window of this size, in the light or the dark scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def value(self, expression):
        """The JSON value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression):
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def press(self, *keys):
        """Press keys one after the other."""
        for key in keys:
            pressed = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": TEXT[key]} if key in TEXT else {}
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **pressed, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def write(self, text):
        """Type letters and digits."""
        for letter in text:
            pressed = {"key": letter, "text": letter, "windowsVirtualKeyCode": ord(letter.upper())}
            self.call("Input.dispatchKeyEvent", type="keyDown", **pressed)
            self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def click(self, selector, across=0.5, down=0.5):
        """Click into an element, at shares of its width and height, where a user would: it must be in sight there."""
        place = self.value(
            f"""(() => {{
                const found = document.querySelector({json.dumps(selector)});
                found.scrollIntoView({{ block: "center" }});
                const box = found.getBoundingClientRect();
                const [x, y] = [box.left + {across} * box.width, box.top + {down} * box.height];
                const top = document.elementFromPoint(x, y);
                return [x, y, found === top || found.contains(top) || top?.contains(found)];
            }})()"""
        )
        assert place and place[2], f"{selector} is not in sight"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def focus(self, selector):
        """Put the keyboard's focus on an element."""
        assert self.value(f"(e => (e.focus(), document.activeElement === e))(document.querySelector({selector!r}))")

    def screenshot(self, path: Path):
        """Write the whole page as a PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))

    def _receive(self):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            part = os.read(self._from, 1 << 20) if ready else b""
            assert part, f"the browser does not answer; {self.log.name} may tell why"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("warning", "error", "assert"):
            self.complaints.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("warning", "error"):
            self.complaints.append(str(told["entry"]))
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith(
            ("file:", "data:", "about:")
        ):
            self.complaints.append(f"request of {told['request']['url']}")
