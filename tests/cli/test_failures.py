"""Errors as the user sees them, and the exit code of each."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxfile import errors
from sandboxfile.cli import exits
from tests.cli.conftest import Session

Make = Callable[..., Session]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("spec", 2),
        ("step", 1),
        ("verify", 1),
        ("stale", 4),
        ("format", 2),
        ("fetch", 1),
        ("store", 3),
        ("host", 3),
        ("capability", 3),
        ("plan", 2),
        ("group", 1),
        ("full", 3),
        ("denied", 3),
        ("bug", 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(sandboxfile: Make, name: str, code: int) -> None:
    ended = sandboxfile().fake(**{"raise": {"build": name}}).run("build").exits(code)
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err


def test_every_error_class_has_a_code() -> None:
    def below(kind: type) -> list[type]:
        return [kind, *(each for child in kind.__subclasses__() for each in below(child))]

    for kind in below(errors.SandboxfileError):
        assert exits.code_of(kind.__new__(kind)) in {1, 2, 3, 4}


def test_all_issues_are_shown_with_their_places(sandboxfile: Make) -> None:
    sandboxfile().fake(**{"raise": {"load": "spec"}}).run("check").stdout("").stderr(
        """
        error: unknown key `stesp`
          --> Sandboxfile:2:1
           |
         2 | base: scratch
           | ^^^^
        hint: did you mean `run`?

        error: `make all` is odd
          --> Sandboxfile:3:7
           |
         3 | run: [make all]
           |       ^^^^^^^^
        """
    ).exits(2)


def test_a_failed_step_shows_its_line_its_last_output_and_debug(sandboxfile: Make) -> None:
    sandboxfile().fake(**{"raise": {"build": "step"}}).run("build").stderr(
        """
        error: `make all` exited with 3
          --> Sandboxfile:3:7
           |
         3 | run: [make all]
           |       ^^^^^^^^
          | making it
          | no rule
        hint: `sandboxfile debug` opens a shell where it failed
        """
    ).exits(1)


def test_each_failed_check_is_shown_and_they_are_counted_last(sandboxfile: Make) -> None:
    ended = sandboxfile().fake(**{"raise": {"build": "verify-two"}}).run("build").exits(1)
    assert re.findall(r"(?m)^error: (.*)$", ended.err) == [
        "`make all` exited with 3",
        "`test -e /made` exited with 1",
        "2 of 3 checks failed",
    ]


def test_one_failed_check_is_shown_with_its_place(sandboxfile: Make) -> None:
    sandboxfile().fake(**{"raise": {"build": "verify"}}).run("build").stderr(
        """
        error: `test -e /made` exited with 1
          --> Sandboxfile:3:7
           |
         3 | run: [make all]
           |       ^^^^^^^^
        hint: look around with `sandboxfile debug`
        """
    ).exits(1)


def test_the_output_of_a_failed_task_is_shown_once(sandboxfile: Make) -> None:
    ended = sandboxfile().fake(events="failed").run("build").exits(1)
    assert ended.err.count("making it") == 1
    ended = sandboxfile().fake(events="failed").run("-v", "build").exits(1)
    assert "run-1 | making it" in ended.err


def test_an_error_is_a_document_with_json(sandboxfile: Make) -> None:
    document = sandboxfile().fake(**{"raise": {"load": "spec"}}).run("check", "--json").exits(2).json()
    assert [(i["code"], i["file"], i["line"], i["column"]) for i in document["error"]["issues"]] == [
        ("unknown-key", "Sandboxfile", 2, 1),
        ("bad-value", "Sandboxfile", 3, 7),
    ]
    document = sandboxfile().fake(**{"raise": {"build": "verify"}}).run("build", "--json").exits(1).json()
    assert document["error"]["failures"][0]["exit_code"] == 1


def test_a_stale_lock_names_each_request(sandboxfile: Make) -> None:
    sandboxfile().fake(**{"raise": {"check_lock": "stale"}}).run("lock", "--check").stderr(
        """
        error: the lock is stale
          | apt: jq is not locked
        hint: run `sandboxfile lock`
        """
    ).exits(4)


def test_a_full_disk_says_so(sandboxfile: Make) -> None:
    sandboxfile().fake(**{"raise": {"build": "full"}}).run("build").stderr(
        """
        error: there is no space left on the disk for /data/x
        hint: `sandboxfile cache gc` frees what nothing needs; `sandboxfile cache du` shows what is kept
        """
    ).exits(3)


def test_a_mistake_of_ours_keeps_its_traceback_in_a_file(sandboxfile: Make) -> None:
    ended = sandboxfile().fake(**{"raise": {"build": "bug"}}).run("build").exits(1)
    assert ended.err.startswith("error: internal error: ZeroDivisionError: division by zero\n")
    assert "please report it" in ended.err
    found = re.search(r"the traceback is in (\S+)", ended.err)
    assert found is not None
    assert "ZeroDivisionError" in Path(found[1]).read_text()


def test_a_mistake_of_ours_shows_its_traceback_with_v(sandboxfile: Make) -> None:
    ended = sandboxfile().fake(**{"raise": {"build": "bug"}}).run("build", "-v").exits(1)
    assert "  | ZeroDivisionError: division by zero" in ended.err


def test_a_reader_that_goes_away_is_no_error(sandboxfile: Make) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = sandboxfile().fake().start("plan", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = process.communicate()
    assert err == ""
    assert process.returncode == 141


def test_output_that_cannot_be_written_is_an_error(sandboxfile: Make) -> None:
    with open("/dev/full", "w") as full:
        process = sandboxfile().fake().start("plan", stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate()
    assert err.startswith("error: there is no space left on the disk\nhint: ")
    assert err.count("\n") == 2
    assert process.returncode == 3


def test_text_that_stdout_cannot_encode_is_escaped(sandboxfile: Make) -> None:
    session = sandboxfile().fake(config={"workdir": "/gr\u00fc\u00dfe"})
    session.env["PYTHONIOENCODING"] = "ascii"
    assert "/gr\\xfc\\xdfe" in session.run("snapshots", "show", "demo").exits(0).out
