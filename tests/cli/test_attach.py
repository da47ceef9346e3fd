"""Commands of a sandbox in the foreground: descriptors, signals, terminals, exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Callable

import pytest

from tests.cli.conftest import Session
from tests.cli.fake import SLUG

Make = Callable[..., Session]


def test_run_passes_stdin_stdout_stderr_and_the_exit_code(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("run", "demo", "--", "sh", "-c", "cat; echo err >&2; exit 42", stdin="in\n").stdout(
        "in"
    ).stderr("err").exits(42)
    assert session.calls("resolve") == [{"target": "demo"}]
    assert session.calls("closed") == [{}]
    assert session.calls("close") == [{}]


def test_run_without_a_target_builds_this_project(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("run", "--locked", "--", "true").stdout("").exits(0)
    assert session.calls("build") == [{"locked": True, "offline": False, "force": []}]
    assert session.calls("start") == [{"slug": SLUG, "network": None}]


def test_run_starts_with_the_snapshots_configuration(sandboxfile: Make) -> None:
    session = sandboxfile().fake(
        config={"env": {"A": "1", "PATH": "/venv/bin:/bin"}, "workdir": "/app", "user": "web"}
    )
    session.run("run", "demo", "--", "/bin/true").exits(0)
    call = session.calls("spawn")[0]
    assert call["env"] == {"A": "1", "PATH": "/venv/bin:/bin", "HOME": "/home/web", "LANG": "C.UTF-8"}
    assert (call["cwd"], call["user"]) == ("/app", "web")


def test_the_options_change_the_snapshots_configuration(sandboxfile: Make) -> None:
    session = sandboxfile().fake(config={"env": {"A": "1"}, "workdir": "/app", "user": "web"})
    session.env["MINE"] = "mine"
    words = ["--env", "A=2", "--env", "MINE", "--user", "root", "--workdir", "/srv", "--network"]
    session.run("run", "demo", *words, "--", "/bin/true").exits(0)
    call = session.calls("spawn")[0]
    assert (call["env"]["A"], call["env"]["MINE"], call["env"]["HOME"]) == ("2", "mine", "/root")
    assert (call["cwd"], call["user"]) == ("/srv", "root")
    assert session.calls("start")[0]["network"] == "full"
    session.run("run", "demo", "--env", "NOT_SET_HERE", "--", "true").stderr(
        "error: `--env NOT_SET_HERE` passes on a variable that is not set here"
    ).exits(2)


def test_an_unknown_snapshot_is_wrong_usage(sandboxfile: Make) -> None:
    sandboxfile().fake().run("run", "dmeo", "--", "true").stderr(
        f"error: no snapshot is called `dmeo`\nhint: did you mean `{SLUG}`?"
    ).exits(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on_to_the_command(sandboxfile: Make, number: signal.Signals) -> None:
    session = sandboxfile().fake()
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo caught; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    process = session.start("run", "demo", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate()[0] == "caught\n"
    assert process.returncode == 9
    assert session.calls("closed") == [{}]


def test_a_command_that_ignores_signals_is_stopped_by_repeating_them(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    script = "trap 'echo no' INT; echo ready; while :; do sleep 0.01; done"
    process = session.start(
        "run", "demo", "--", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "no\n"
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert session.calls("close") == [{}]
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


class Notes:
    """What the fake client notes, read while it runs."""

    def __init__(self, session: Session) -> None:
        path = session.directory / "notes"
        os.mkfifo(path)
        session.env["FAKE_RECORD"] = str(path)
        # Open for both, so that neither side meets an end between two notes.
        self._file = os.fdopen(os.open(path, os.O_RDWR))
        self.seen: list[str] = []

    def until(self, what: str) -> None:
        """Read up to this note."""
        while what not in self.seen:
            self.seen.append(json.loads(self._file.readline())[0])

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_a_build_releases_everything_and_exits_130(
    sandboxfile: Make, number: signal.Signals
) -> None:
    session = sandboxfile().fake(wait=True)
    notes = Notes(session)
    process = session.start("build", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    notes.until("waiting")
    process.send_signal(number)
    notes.until("close")
    notes.close()
    assert notes.seen == ["load", "build", "waiting", "cancelled", "close"]
    assert process.communicate() == ("", "interrupted\n")
    assert process.returncode == 130


def test_a_second_signal_ends_a_build_that_does_not_let_go(sandboxfile: Make) -> None:
    session = sandboxfile().fake(wait="stubborn")
    notes = Notes(session)
    process = session.start("build")
    notes.until("waiting")
    process.send_signal(signal.SIGINT)
    notes.until("cancelled")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    notes.close()


def test_closed_descriptors_are_dev_null_to_the_command(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    words = shlex.join(session.argv("run", "demo", "--", "sh", "-c", "readlink /proc/self/fd/0 >&2; cat"))
    done = subprocess.run(
        ["sh", "-c", f"exec {words} <&- >&-"],
        cwd=session.directory,
        env=session.environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("/dev/null\n", 0)


def test_shell_reads_commands_from_stdin(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("shell", "demo", stdin="echo hi; exit 3\n").stdout("hi").stderr("").exits(3)


def test_debug_says_what_failed_and_how_to_run_it_again(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("debug", stdin='eval "$SANDBOXFILE_COMMAND"; echo "then $?"\n').stdout("then 1").stderr(
        """
        the step `run-1` exited with 1; it ran as root in /:
          /bin/sh -ec 'false; echo '"'"'not reached'"'"''
        run it again with: eval "$SANDBOXFILE_COMMAND"
        """
    ).exits(0)


class OnTerminal:
    """The program on a pseudo-terminal of 33 rows and 99 columns."""

    def __init__(self, session: Session, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(33, 99)
        self.before = termios.tcgetattr(slave)
        session.env["TERM"] = "xterm"
        self.process = session.start(*words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        self.slave = slave
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: bytes) -> None:
        """Read until a text has come."""
        while text not in self.seen:
            readable, _, _ = select.select([self.master], [], [], 30)
            assert readable, f"{text!r} never came: {self.seen!r}"
            self.seen += os.read(self.master, 4096)

    def close(self) -> int:
        code = self.process.wait()
        os.close(self.master)
        os.close(self.slave)
        return code


def test_on_a_terminal_the_command_gets_one_of_the_same_size(sandboxfile: Make) -> None:
    script = (
        "stty size; echo term=$TERM; trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.05; done"
    )
    on = OnTerminal(sandboxfile().fake(), "run", "demo", "--", "/bin/sh", "-c", script)
    on.expect(b"ready")
    assert b"33 99" in on.seen
    assert b"term=xterm" in on.seen
    on.resize(11, 44)
    on.process.send_signal(signal.SIGWINCH)
    on.expect(b"11 44")
    assert on.close() == 7


def test_the_terminal_is_raw_while_the_command_runs_and_restored_after(sandboxfile: Make) -> None:
    script = "stty raw -echo; echo ready; dd bs=1 count=1 2>/dev/null | od -An -c; exit 5"
    on = OnTerminal(sandboxfile().fake(), "run", "demo", "--", "/bin/sh", "-c", script)
    on.expect(b"ready")
    assert not termios.tcgetattr(on.slave)[3] & termios.ISIG
    os.write(on.master, b"\x03")
    on.expect(b"003")
    on.process.wait()
    assert termios.tcgetattr(on.slave) == on.before
    assert on.close() == 5


def test_the_terminal_is_restored_when_the_program_is_terminated(sandboxfile: Make) -> None:
    on = OnTerminal(sandboxfile().fake(), "run", "demo", "--", "/bin/sh", "-c", "echo ready; sleep 100")
    on.expect(b"ready")
    on.process.send_signal(signal.SIGTERM)
    on.process.wait()
    assert termios.tcgetattr(on.slave) == on.before
    assert on.close() == 130


SERVER = (
    "import http.server, sys; print('serving', file=sys.stderr, flush=True);"
    "s = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler);"
    "s.serve_forever()"
)


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_up_prints_the_url_when_the_port_answers_and_stops_on_a_signal(sandboxfile: Make) -> None:
    import sys

    port = free_port()
    command = shlex.join([sys.executable, "-c", SERVER, str(port)])
    session = sandboxfile().fake(
        config={"start": {"command": f"exec {command}", "port": port, "timeout": None}}
    )
    process = session.start("up", "demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 130)
    assert err.splitlines()[:2] == ["serving", "running; Ctrl-C stops it"]
    assert session.calls("closed") == [{}]


def test_up_ends_with_its_command(sandboxfile: Make) -> None:
    session = sandboxfile().fake(config={"start": {"command": "printf '\\033[2Jbye'; exit 6", "port": None}})
    session.run("up", "demo").stdout("").stderr(
        """
        `start` names no port, so there is no URL
        bye
        the start command ended with exit code 6
        """
    ).exits(6)


def test_up_says_when_the_command_ends_before_its_port_answers(sandboxfile: Make) -> None:
    port = free_port()
    session = sandboxfile().fake(config={"start": {"command": "echo no config; exit 6", "port": port}})
    session.run("up", "demo").stdout("").stderr(
        f"no config\nerror: the start command ended with exit code 6 before port {port} answered"
    ).exits(1)
    ended = session.run("up", "demo", "-q").exits(1)
    assert "  | no config" in ended.err


def test_up_stops_after_its_timeout(sandboxfile: Make) -> None:
    session = sandboxfile().fake(
        config={"start": {"command": "exec sleep 100", "port": None, "timeout": 900.0}}
    )
    ended = session.run("up", "demo", "--timeout", "100ms").exits(0)
    assert ended.err.endswith("stopped after 0.1 s\n")


def test_up_without_a_start_command_says_how_to_add_one(sandboxfile: Make) -> None:
    ended = sandboxfile().fake().run("up", "demo").exits(2)
    assert ended.err.startswith(f"error: `{SLUG}` has no `start` command\nhint: add `start:")


def test_up_refuses_a_port_that_is_taken(sandboxfile: Make) -> None:
    session = sandboxfile().fake(config={"start": {"command": "exec sleep 100", "port": 9}})
    session.run("up", "demo", "--port", "1").stderr(
        """
        error: port 1 of this machine cannot be used: address already in use
        hint: choose another with `--port`, or leave it out for a free one
        """
    ).exits(2)
