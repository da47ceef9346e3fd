"""A service that runs Python programs it has never seen: each request in a sandbox of its own.

    python3 service.py SNAPSHOT [--port 8080]

POST / with a program's source as the body; the answer is JSON:

    {"stdout": "42\\n", "stderr": "", "exit_code": 0, "limit": null, "seconds": 0.03}

`limit` names what stopped the program: `cpu`, `time`, `memory`, `pids`, `output` or `disk`; null when it
ended by itself. Nothing of a request is left when its answer is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Thread

from sandboxfile import AsyncClient, SandboxfileError

MOST_SOURCE = 256 * 1024
MOST_WAITING = 64
MEMORY = "128MB"
DISK = "16MB"
OUTPUT = 256 * 1024
PIDS = 16
# NumPy would start a thread for each processor of the machine.
ENV = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
CPU_SECONDS = 1
TIME = 10.0

# The soft limit ends a program with SIGXCPU, which names the reason; the hard one ends those that ignore it.
RUN = (
    f"ulimit -S -t {CPU_SECONDS}; ulimit -H -t {CPU_SECONDS + 1}; ulimit -c 0; "
    "exec python3 -I /tmp/program.py"
)

# How Python itself says, at the end of a traceback, that the system would give it no more.
LAST_WORDS = {
    "[Errno 28] No space left on device": "disk",
    "BlockingIOError: [Errno 11] Resource temporarily unavailable": "pids",
    "RuntimeError: can't start new thread": "pids",
    "MemoryError": "memory",
}


@dataclass(frozen=True)
class Answer:
    """What became of a program."""

    stdout: str
    stderr: str
    exit_code: int
    limit: str | None
    seconds: float


async def run(client: AsyncClient, snapshot: str, source: bytes, seconds: float = TIME) -> Answer:
    """Run one program in a fresh sandbox. Raises SandboxfileError when there can be none."""
    sandbox = await client.sandboxes.create(
        snapshot, memory=MEMORY, cpus=1, pids=PIDS, disk=DISK, output=OUTPUT, env=ENV, network="none"
    )
    async with sandbox:
        await sandbox.fs.write_file("/tmp/program.py", source, mode=0o444)
        done = await sandbox.sh(RUN, cwd="/tmp", user="nobody", timeout=seconds, check=False)
    stdout, stderr = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    limit = limit_of(done.limit, done.exit_code, done.seconds, stderr)
    return Answer(stdout, stderr, done.exit_code, limit, round(done.seconds, 3))


def limit_of(said: str | None, exit_code: int, seconds: float, stderr: str) -> str | None:
    """The limit that stopped a program: what the sandbox says, else what the program's end says."""
    if exit_code == 128 + signal.SIGXCPU:
        return "cpu"
    if said is not None:
        return "time" if said == "timeout" else said
    if exit_code == 128 + signal.SIGKILL and seconds > CPU_SECONDS:
        return "cpu"
    if exit_code == 1:
        # Not only the very last line: the children of a fork bomb write theirs at the same time.
        last = stderr.splitlines()[-100:]
        return next(
            (limit for words, limit in LAST_WORDS.items() if any(words in line for line in last)), None
        )
    return None


class Runner:
    """The sandboxes' event loop, in a thread of its own; `run` is called from the server's threads."""

    def __init__(self, home: Path | None, snapshot: str, concurrency: int, seconds: float) -> None:
        self._snapshot = snapshot
        self._seconds = seconds
        self._waiting = BoundedSemaphore(MOST_WAITING)
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(home=home)
        self._slots = asyncio.Semaphore(concurrency)
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()

    def _call(self, coroutine: object) -> Future[Answer]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[arg-type]

    def run(self, source: bytes) -> Answer | None:
        """Run a program; None when too many wait already."""
        if not self._waiting.acquire(blocking=False):
            return None
        try:
            return self._call(self._run(source)).result()
        finally:
            self._waiting.release()

    async def _run(self, source: bytes) -> Answer:
        async with self._slots:
            return await run(self._client, self._snapshot, source, self._seconds)

    def close(self) -> None:
        """End every sandbox and the loop."""
        self._call(self._client.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Handler(BaseHTTPRequestHandler):
    """POST / runs the body."""

    runner: Runner
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._fail(411, "the request needs a Content-Length")
        elif int(length) > MOST_SOURCE:
            self._fail(413, f"a program is at most {MOST_SOURCE} bytes long")
        else:
            source = self.rfile.read(int(length))
            if len(source) < int(length):
                self.close_connection = True
                return
            try:
                answer = self.runner.run(source)
            except SandboxfileError as error:
                self.log_error("%s", error.message)
                self._fail(500, "no sandbox could be made")
                return
            if answer is None:
                self._fail(503, "too many programs are waiting")
            else:
                self._send(200, asdict(answer))

    def do_GET(self) -> None:
        self._fail(405, "POST a Python program")

    def _fail(self, status: int, sentence: str) -> None:
        # The body may not have been read: what follows on this connection would be it.
        self.close_connection = True
        self._send(status, {"error": sentence})

    def _send(self, status: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Requests are not worth a line each."""


class Server(ThreadingHTTPServer):
    """One thread for each connection; a burst of them may wait to be accepted."""

    daemon_threads = True
    request_queue_size = 128


def main() -> int:
    parser = argparse.ArgumentParser(description="Run Python programs that come by HTTP in sandboxes.")
    parser.add_argument("snapshot", help="slug or name of a snapshot that has python3")
    parser.add_argument("--home", type=Path, help="the store's directory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 for any free one")
    parser.add_argument("--concurrency", type=int, default=4, help="sandboxes at a time")
    parser.add_argument("--time", type=float, default=TIME, help="seconds a program may take in all")
    given = parser.parse_args()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    runner = Runner(given.home, given.snapshot, given.concurrency, given.time)
    try:
        # An unknown snapshot, or a host that cannot keep the limits, is said now.
        runner.run(b"")
        Handler.runner = runner
        with Server((given.host, given.port), Handler) as server:
            host, port = server.server_address[:2]
            print(f"http://{host}:{port}", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    except SandboxfileError as error:
        print(f"{parser.prog}: {error.message}", file=sys.stderr)
        return 2
    finally:
        runner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
