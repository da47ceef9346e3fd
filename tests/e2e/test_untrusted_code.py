"""The example that runs a stranger's program in a sandbox of its own, under a small hostile load."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.root]

EXAMPLE = Path(__file__).parents[2] / "examples" / "untrusted-code"


@pytest.fixture
def snapshot(based: Callable[[str], Program]) -> Program:
    """The example's own environment, built on the base that is there already."""
    document = (EXAMPLE / "Sandboxfile").read_text()
    program = based(document.partition("base: debian:13\n")[2])
    program("build")
    return program


@pytest.fixture
def service(snapshot: Program) -> Iterator[str]:
    """The URL of the running service."""
    argv = [sys.executable, EXAMPLE / "service.py", "test", "--home", snapshot.home, "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def post(url: str, body: bytes, method: str = "POST") -> tuple[int, dict[str, object]]:
    """The status and the document of an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body or None, method=method)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_every_program_of_a_hostile_load_gets_its_right_answer_and_leaves_nothing(snapshot: Program) -> None:
    argv = [sys.executable, EXAMPLE / "load.py", "test", "--home", snapshot.home, "--requests", "50"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 wrong" in done.stdout


def test_requests_that_are_none_are_refused(service: str) -> None:
    assert post(service, b"", "GET")[0] == 405
    assert post(service, b"x" * 300_000)[0] == 413
    with socket.create_connection(("127.0.0.1", int(service.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 411")
    assert post(service, b"print(1)")[1]["stdout"] == "1\n"


def test_an_unknown_snapshot_is_said_at_the_start(snapshot: Program) -> None:
    argv = [sys.executable, EXAMPLE / "service.py", "no-such-snapshot", "--home", snapshot.home]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": ""}
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["service.py: no volume and no snapshot is called `no-such-snapshot`"]
