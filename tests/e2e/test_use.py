"""What a snapshot is for: run, shell, up, and looking after snapshots."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]

Based = Callable[[str], Program]

SERVER = """\
apt: [python3-minimal, libpython3-stdlib]
env: {GREETING: hello}
workdir: /srv
verify:
  - {http: {path: /, body: hello}}
run:
  - 'echo "$GREETING" > /srv/index.html'
start: {command: exec python3 -m http.server -b 127.0.0.1 8123, port: 8123, timeout: 5m}
"""


@pytest.fixture
def served(based: Based) -> Program:
    """A built project with a server."""
    program = based(SERVER)
    program("build")
    return program


def test_run_passes_streams_and_the_exit_code_through(served: Program) -> None:
    script = "cat; echo err >&2; echo $GREETING; pwd; exit 42"
    ran = served("run", "--", "sh", "-c", script, code=42, stdin="in\n")
    assert ran.stdout == "in\nhello\n/srv\n"
    assert ran.stderr == "err\n"


def test_run_takes_a_slug_and_a_name(served: Program) -> None:
    slug = served("build").last
    assert served("run", slug, "--", "cat", "/srv/index.html").stdout == "hello\n"
    assert served("run", "test", "--", "true").code == 0
    assert "did you mean" in served("run", slug[:-1] + "x", "--", "true", code=2).stderr


def test_every_boot_is_the_same_and_leaves_nothing(served: Program) -> None:
    served("run", "--", "sh", "-c", "echo changed > /srv/index.html; rm -rf /etc/apt")
    assert (
        served("run", "--", "sh", "-c", "cat /srv/index.html; ls -d /etc/apt").stdout == "hello\n/etc/apt\n"
    )


def test_run_gives_a_terminal_when_there_is_one(served: Program) -> None:
    parent, child = pty.openpty()
    process = served.start(
        "run", "--", "sh", "-c", "tty; echo $TERM; exit 7", stdin=child, stdout=child, stderr=child
    )
    os.close(child)
    output = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        output += piece
    assert process.wait() == 7
    assert b"/dev/pts/" in output or b"/dev/console" in output


def test_up_prints_a_url_and_stops_everything_on_interrupt(served: Program) -> None:
    process = served.start("up", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/?", url)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert opener.open(url).read() == b"hello\n"
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    with pytest.raises(OSError, match="refused"):
        opener.open(url)


def test_snapshots_can_be_listed_shown_and_removed(served: Program) -> None:
    slug = served("build").last
    listed = json.loads(served("snapshots", "list", "--json").stdout)
    assert slug in {each["slug"] for each in listed}
    shown = json.loads(served("snapshots", "show", slug, "--json").stdout)
    assert shown["config"]["env"]["GREETING"] == "hello"
    served("snapshots", "rm", slug)
    assert slug not in served("snapshots", "list").stdout
    # Its layers and remembered checks are still there: publishing again does nothing else.
    again = served("build", "--progress=json")
    assert again.last == slug
    assert [t for t in again.tasks() if t.startswith("layer:")] == []


def test_explain_tells_what_a_layer_is_and_shows_its_log(served: Program) -> None:
    text = served("explain", "run-1").stdout
    assert "index.html" in text
    assert "echo" in served("explain", "run-1", "--log").stdout


def test_graph_writes_dot_and_mermaid(served: Program) -> None:
    assert served("graph").stdout.startswith("digraph")
    assert served("graph", "--format", "mermaid").stdout.startswith(("graph", "flowchart"))


def test_the_filesystem_of_a_sandbox_looks_as_it_should(served: Program) -> None:
    script = (
        "stat -c '%a %U:%G %n' / /tmp /root /etc/shadow /usr/bin/passwd; id -u; hostname; cat /etc/hostname"
    )
    assert served("run", "--", "sh", "-c", script).stdout.splitlines() == [
        "755 root:root /",
        "1777 root:root /tmp",
        "700 root:root /root",
        "640 root:shadow /etc/shadow",
        "4755 root:root /usr/bin/passwd",
        "0",
        "sandbox",
        "sandbox",
    ]
