"""Ways of showing progress, on recorded events with a clock that the test moves."""

from __future__ import annotations

import io
import json
import os
import pty
import select
from collections.abc import Callable

import pytest

from sandboxfile.cli.console import Console
from sandboxfile.cli.jsonlines import JsonProgress
from sandboxfile.cli.lines import LineProgress
from sandboxfile.cli.live import LiveProgress
from sandboxfile.cli.progress import Progress, make_progress
from sandboxfile.cli.safe import LineAssembler, safe, safe_line
from sandboxfile.core.event import (
    Event,
    Notice,
    Outcome,
    TaskFinished,
    TaskOutput,
    TaskProgress,
    TaskStarted,
)
from tests.cli.conftest import Session, text

RECORDED: tuple[tuple[float, Event], ...] = (
    (0.0, TaskStarted("fetch:apt-1", "fetch for apt-1")),
    (0.1, TaskProgress("fetch:apt-1", 0, 40_100_000, "bytes")),
    (0.2, TaskStarted("layer:base", "debian:trixie (87 packages)")),
    (1.1, TaskProgress("fetch:apt-1", 5_000_000, 40_100_000, "bytes")),
    (6.1, TaskProgress("fetch:apt-1", 30_000_000, 40_100_000, "bytes")),
    (6.2, TaskOutput("layer:base", "I: extracting\nI: insta")),
    (6.3, TaskOutput("layer:base", "lling\n")),
    (8.1, TaskProgress("fetch:apt-1", 40_100_000, 40_100_000, "bytes")),
    (8.1, TaskFinished("fetch:apt-1", Outcome.DONE)),
    (9.0, Notice("warning", "the archive's date is old")),
    (14.4, TaskFinished("layer:base", Outcome.DONE, "8214 files, 261 MB")),
    (15.0, TaskStarted("verify", "verify (1 of 2 checks)")),
    (15.0, TaskStarted("check:verify-1", "python3 --version", "verify")),
    (15.1, TaskOutput("check:verify-1", "Python 3.13")),
    (15.3, TaskFinished("check:verify-1", Outcome.FAILED, "exited with 1")),
    (15.3, TaskFinished("verify", Outcome.CANCELLED)),
)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def played(make: Callable[[io.StringIO, Clock], Progress]) -> str:
    """What a reporter of the recorded events writes."""
    stream, clock = io.StringIO(), Clock()
    progress = make(stream, clock)
    for when, event in RECORDED:
        clock.now = when
        progress.emit(event)
    progress.close()
    return stream.getvalue()


def test_lines_say_each_fact_once() -> None:
    assert text(played(lambda stream, clock: LineProgress(stream, clock=clock))) == text(
        """
        start    fetch:apt-1: fetch for apt-1
        start    base: debian:trixie (87 packages)
        at       fetch:apt-1: 30.0 MB of 40.1 MB, 5.0 MB/s
        done     fetch:apt-1: 40.1 MB of 40.1 MB, 5.0 MB/s (8.1 s)
        warning: the archive's date is old
        done     base: 8214 files, 261 MB (14 s)
        start    verify: verify (1 of 2 checks)
        start    verify-1: python3 --version
        failed   verify-1: exited with 1 (0.3 s)
        cancelled verify: verify (1 of 2 checks) (0.3 s)
        """
    )


def test_verbose_lines_hold_the_output_with_the_tasks_name() -> None:
    said = played(lambda stream, clock: LineProgress(stream, verbose=True, clock=clock)).splitlines()
    assert [line for line in said if " | " in line] == [
        "base | I: extracting",
        "base | I: installing",
        "verify-1 | Python 3.13",
    ]


def test_json_lines_hold_every_event() -> None:
    said = played(lambda stream, clock: JsonProgress(stream, clock=clock)).splitlines()
    records = [json.loads(line) for line in said]
    assert len(records) == len(RECORDED)
    assert records[1] == {
        "at": 0.1,
        "event": "task-progress",
        "task": "fetch:apt-1",
        "done": 0,
        "total": 40_100_000,
        "unit": "bytes",
    }
    assert records[14]["outcome"] == "failed"


def test_the_output_of_failed_tasks_is_kept() -> None:
    progress = Progress()
    for number in range(30):
        progress.emit(TaskStarted("layer:run-1", "run")) if number == 0 else None
        progress.emit(TaskOutput("layer:run-1", f"line {number}\n"))
    progress.emit(TaskFinished("layer:run-1", Outcome.FAILED))
    assert progress.board.failed == {"run-1": tuple(f"line {n}" for n in range(10, 30))}


def test_the_live_tree_shows_what_runs_how_far_and_its_last_output() -> None:
    clock = Clock()
    live = LiveProgress(Console(io.StringIO(), io.StringIO()), clock=clock)
    for when, event in RECORDED[:7]:
        clock.now = when
        live.emit(event)
    assert [row.plain for row in live.tree()] == [
        "⠸ fetch:apt-1 6.3 s 30.0 MB of 40.1 MB, 4.8 MB/s fetch for apt-1",
        "⠸ base 6.1 s debian:trixie (87 packages)",
        "    I: extracting",
        "    I: installing",
    ]
    live.close()


def test_parts_of_a_task_stand_below_it() -> None:
    clock = Clock()
    live = LiveProgress(Console(io.StringIO(), io.StringIO()), clock=clock)
    for event in (
        TaskStarted("verify", "verify"),
        TaskStarted("layer:x", "x"),
        TaskStarted("check:verify-1", "true", "verify"),
    ):
        live.emit(event)
    assert [row.plain for row in live.tree()] == ["⠋ verify 0.0 s", "  ⠋ verify-1 0.0 s true", "⠋ x 0.0 s"]
    live.close()


def test_the_live_tree_appears_on_a_terminal_and_goes_without_a_trace() -> None:
    master, slave = pty.openpty()
    seen = b""
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        live = LiveProgress(Console(io.StringIO(), stream, environment={"TERM": "xterm"}))
        live.emit(TaskStarted("layer:run-1", "run: make all"))
        while b"run-1" not in seen:
            assert select.select([master], [], [], 30)[0]
            seen += os.read(master, 65536)
        live.emit(TaskFinished("layer:run-1", Outcome.DONE, "3 files"))
        live.close()
        while b"\x1b[?25h" not in seen:
            assert select.select([master], [], [], 30)[0]
            seen += os.read(master, 65536)
    os.close(master)
    assert b"\x1b[?25l" in seen
    assert b"done     run-1: 3 files" in seen


def test_work_that_is_over_at_once_is_not_drawn() -> None:
    err = io.StringIO()
    live = LiveProgress(Console(io.StringIO(), err))
    live.emit(TaskStarted("layer:run-1", "run: make all"))
    live.emit(TaskFinished("layer:run-1", Outcome.REUSED))
    assert err.getvalue() == "reused   run-1: run: make all (0.0 s)\n"


@pytest.mark.parametrize(
    ("mode", "quiet", "kind"),
    [
        ("auto", False, LineProgress),
        ("plain", False, LineProgress),
        ("live", False, LiveProgress),
        ("auto", True, Progress),
        ("live", True, Progress),
        ("json", True, JsonProgress),
    ],
)
def test_the_mode_chooses_the_way(mode: str, quiet: bool, kind: type) -> None:
    console = Console(io.StringIO(), io.StringIO(), quiet=quiet)
    assert type(make_progress(mode, console)) is kind


def test_a_build_says_what_it_does(sandboxfile: Callable[..., Session]) -> None:
    ended = sandboxfile().fake(events="done").run("build").exits(0)
    said = [line.partition(" (")[0] for line in ended.err.splitlines()]
    assert said == [
        "start    run-1: run: make all",
        "warning: the clock is odd",
        "done     run-1: 3 files, 1.2 kB",
        "1 layer built, 1 reused, 1 check passed",
    ]
    assert sandboxfile().fake(events="done").run("build", "-q").err == ""
    assert "run-1 | making it" in sandboxfile().fake(events="done").run("build", "-v").err
    lines = sandboxfile().fake(events="done").run("build", "--progress=json", "-q").err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == [
        "task-started",
        "task-output",
        "notice",
        "task-finished",
    ]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]52;c;aGk=\x1b\\text", "text"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x9b2Jx", "x"),
        ("\x1bcx", "x"),
        ("a\x00b\x7f", "a\ufffdb\ufffd"),
        ("left\u202eright", "left\ufffdright"),
        ("tab\tstays", "tab\tstays"),
        ("grüße 世界", "grüße 世界"),
    ],
)
def test_nothing_a_terminal_obeys_gets_through(written: str, shown: str) -> None:
    assert safe(written) == shown


def test_a_line_is_what_the_terminal_would_show_in_the_end() -> None:
    assert safe_line("10%\r50%\r100%\r") == "100%"


def test_lines_are_whole_however_the_pieces_end() -> None:
    assembler = LineAssembler()
    written = "one\n\x1b[31mtw\x1b[0mo\nthree"
    lines = [line for character in written for line in assembler.feed(character)]
    assert lines == ["one", "two"]
    assert assembler.partial == "three"
    assert assembler.finish() == ["three"]
    assert assembler.finish() == []


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    assembler = LineAssembler()
    pieces = [len(line) for _ in range(100) for line in assembler.feed("x" * 1000)]
    assert sum(pieces) + len(assembler.partial) == 100_000
    assert max(pieces) <= 5000
