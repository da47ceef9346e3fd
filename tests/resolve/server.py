"""A web server on loopback that serves a directory, remembers what it was asked, and can misbehave."""

from __future__ import annotations

import http.server
import socket
import threading
from collections import deque
from pathlib import Path


class Server:
    """Serves `directory`. `answers` holds, by path, status codes for the next requests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: list[str] = []
        self.answers: dict[str, deque[int]] = {}
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(directory))  # type: ignore[arg-type]

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                planned = outer.answers.get(self.path)
                if planned:
                    self.send_error(planned.popleft())
                    return
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def dead_url() -> str:
    """A URL at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
