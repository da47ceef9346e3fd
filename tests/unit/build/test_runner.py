from __future__ import annotations

from pathlib import Path

import pytest

from sandboxfile.build.runner import Log, how_it_ended
from sandboxfile.core.event import Event, NullReporter, TaskOutput
from sandboxfile.engine.base import Completed


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def test_a_log_is_in_its_place_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.log"
    log = Log(path, "layer:run-1", NullReporter())
    log.output("stdout", b"one\ntwo\n")
    assert not path.exists()
    log.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.log"]


def test_the_tail_holds_the_last_lines_and_what_a_progress_bar_last_showed(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.log", "t", NullReporter())
    log.output("stdout", b"".join(b"line %d\n" % n for n in range(50)) + b"10%\r55%\r100%\nend")
    log.close()
    assert log.tail()[-3:] == ("line 49", "100%", "end")
    assert len(log.tail()) <= 20


def test_secrets_reach_neither_the_log_nor_the_events_nor_the_tail(tmp_path: Path) -> None:
    heard = Heard()
    log = Log(tmp_path / "a.log", "t", heard, (b"hunter22",))
    log.output("stdout", b"my hunt")
    log.output("stderr", b"other stream")
    log.output("stdout", b"er22 is safe\n")
    log.close()
    text = (tmp_path / "a.log").read_text() + str(heard.events) + str(log.tail())
    assert "hunter22" not in text
    shown = "".join(e.text for e in heard.events if isinstance(e, TaskOutput))
    assert shown == "my other stream*** is safe\n"


@pytest.mark.parametrize(
    "line",
    [
        b"curl: (6) Could not resolve host: x.example",
        b"E: Failed to fetch  Temporary failure resolving 'x.example'",
        b"socket.gaierror: [Errno -3] Temporary failure in name resolution",
        b"npm ERR! getaddrinfo EAI_AGAIN x.example",
        b"connect: Network is unreachable",
        b"wget: bad address 'x.example'",
    ],
)
def test_want_of_network_is_recognised(tmp_path: Path, line: bytes) -> None:
    log = Log(tmp_path / "a.log", "t", NullReporter())
    log.output("stderr", line + b"\n")
    log.close()
    assert log.wants_network


@pytest.mark.parametrize(
    ("completed", "words"),
    [
        (Completed(3), "exited with 3"),
        (Completed(137), "was ended by signal 9"),
        (Completed(127), "was not found (exit code 127)"),
        (Completed(137, timed_out=True), "was still running after 30 s"),
        (Completed(137, out_of_memory=True), "was killed for want of memory (OOM)"),
    ],
)
def test_how_a_command_ended_is_said_in_words(completed: Completed, words: str) -> None:
    assert how_it_ended(completed, 30.0) == words
