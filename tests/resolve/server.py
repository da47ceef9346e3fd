"""A web server on loopback that serves a directory, remembers what it was asked, and can misbehave."""

from __future__ import annotations

import http.server
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Behaviour = Callable[[Any], None]
"""What is done with a request, instead of serving the file: given the handler."""


class Server:
    """Serves `directory`, and `files` by path (their content may be elsewhere).

    answers:    status codes for the next requests, by path
    behaviours: what to do with the next requests, by path; `always` does it with every request
    asked:      the paths that were asked for; `ranges` the Range headers beside them, empty for none
    """

    def __init__(self, directory: Path, *, host: str = "127.0.0.1") -> None:
        self.directory = directory
        self.files: dict[str, Path] = {}
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.answers: dict[str, deque[int]] = {}
        self.behaviours: dict[str, deque[Behaviour]] = {}
        self.always: Behaviour | None = None
        self.over = threading.Event()
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(directory))  # type: ignore[arg-type]

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.ranges.append(self.headers.get("Range", ""))
                try:
                    if codes := outer.answers.get(self.path):
                        self.send_error(codes.popleft())
                    elif planned := outer.behaviours.get(self.path):
                        planned.popleft()(self)
                    elif outer.always is not None:
                        outer.always(self)
                    elif self.headers.get("Range") or self.path in outer.files:
                        send(self, outer.content(self.path))
                    else:
                        super().do_GET()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def content(self, path: str) -> bytes | None:
        """The bytes of a path, None when there is nothing."""
        place = self.files.get(path) or self.directory / unquote(path).lstrip("/")
        return place.read_bytes() if place.is_file() else None

    def plan(self, path: str, *behaviours: Behaviour) -> None:
        """What to do with the next requests for a path."""
        self.behaviours.setdefault(path, deque()).extend(behaviours)

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # Behaviours that need the server.

    def silent(self, handler: Any) -> None:
        """Take the request and never answer."""
        self.over.wait()

    def trickling(self, handler: Any) -> None:
        """Send a byte now and then."""
        content = self.content(handler.path) or b""
        _head(handler, 200, len(content))
        for position in range(len(content)):
            handler.wfile.write(content[position : position + 1])
            handler.wfile.flush()
            if self.over.wait(0.02):
                return

    def truncating(self, at: int) -> Behaviour:
        """Announce the whole and end after `at` bytes."""

        def answer(handler: Any) -> None:
            content = self.content(handler.path) or b""
            _head(handler, 200, len(content))
            handler.wfile.write(content[:at])
            handler.close_connection = True

        return answer

    def without_length(self, at: int) -> Behaviour:
        """Announce nothing and end after `at` bytes."""

        def answer(handler: Any) -> None:
            _head(handler, 200, None)
            handler.wfile.write((self.content(handler.path) or b"")[:at])
            handler.close_connection = True

        return answer

    def announcing(self, length: int) -> Behaviour:
        """Announce another length than the file has."""

        def answer(handler: Any) -> None:
            _head(handler, 200, length)
            handler.wfile.write(self.content(handler.path) or b"")
            handler.close_connection = True

        return answer


def send(handler: Any, content: bytes | None) -> None:
    """Answer with a content or a part of it, as a good server does."""
    if content is None:
        handler.send_error(404)
        return
    wanted = handler.headers.get("Range", "")
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
    if wanted and handler.headers.get("If-Range", ETAG) == ETAG:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        content = content[start:]
    else:
        handler.send_response(200)
    handler.send_header("ETag", ETAG)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


ETAG = '"the same file"'


def saying(content: bytes) -> Behaviour:
    """Answer with other bytes than the file's."""
    return lambda handler: send(handler, content)


def status(code: int, **headers: str) -> Behaviour:
    """Answer with a status code."""

    def answer(handler: Any) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def redirecting(handler: Any) -> None:
    """Send on to itself, for ever."""
    status(302, Location=handler.path)(handler)


def babbling(handler: Any) -> None:
    """Answer with something that is not HTTP."""
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


def resetting(handler: Any) -> None:
    """Drop the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def _head(handler: Any, code: int, length: int | None) -> None:
    handler.send_response(code)
    handler.send_header("ETag", ETAG)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


def dead_url() -> str:
    """A URL at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def mute() -> Iterator[str]:
    """The host and port of something that takes connections and never says a word, not even of TLS."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}"
