"""Headless Chromium that plays a session URL, on a page of another origin than the server's, as a user's page would be."""

import contextlib
import functools
import http.server
import os
import pathlib
import shutil
import threading
import time

PAGES = pathlib.Path(__file__).resolve().parent / "players"


def executable():
    """Debian's Chromium, or the one that CHROMIUM names."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


class _Pages(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def pages():
    """Serves the page and the players' scripts."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Pages, directory=str(PAGES)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Player:
    """One tab that plays."""

    def __init__(self, context, origin, kind, url, options=None):
        self.page = context.new_page()
        self.playlists, self.failed = [], []
        self.page.on("response", self._answered)
        self.page.goto(f"{origin}/player.html")
        self.page.evaluate("([kind, url, options]) => start(kind, url, options)", [kind, url, options])

    def _answered(self, response):
        name = response.url.split("?")[0]
        if response.status >= 400:
            self.failed.append((response.status, name.rsplit("/", 1)[-1]))
        elif name.endswith((".m3u8", ".mpd")):
            with contextlib.suppress(Exception):  # the tab may be gone before the body is read
                self.playlists.append((response.url, response.text()))

    def report(self):
        return self.page.evaluate("() => report")

    def until(self, check, within=30.0):
        """Waits until `check(report)` is true; fails with the report's words."""
        deadline = time.monotonic() + within
        while True:
            report = self.report()
            if check(report):
                return report
            frames = report["frames"]
            words = {**report, "frames": f"{len(frames)}, last {frames[-1:]}"}
            assert report["fatal"] is None, f"the player gave up: {words}, refused: {self.failed}"
            assert time.monotonic() < deadline, f"not within {within} s: {words}, refused: {self.failed}"
            self.page.wait_for_timeout(50)

    def seek(self, seconds):
        self.page.evaluate("seconds => { report.frames.length = 0; video.currentTime = seconds; }", seconds)

    def close(self):
        self.page.close()
