"""How the command line is read, and what is said when it cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from sandboxfile.cli.verbs import VERBS
from tests.cli.conftest import Session

Make = Callable[..., Session]


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_help(sandboxfile: Make, verb: str) -> None:
    ended = sandboxfile().run(verb, "--help").exits(0)
    assert ended.out.startswith(f"usage: sandboxfile {verb}")
    assert "options of every verb:" in ended.out
    assert ended.err == ""
    assert max(len(line) for line in ended.out.splitlines()) <= 100


def test_help_names_every_verb(sandboxfile: Make) -> None:
    ended = sandboxfile().run("--help").exits(0)
    assert re.findall(r"(?m)^  ([a-z]+)  ", ended.out)[: len(VERBS)] == [verb.name for verb in VERBS]
    assert sandboxfile().run().out == ended.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bulid"], "error: there is no verb `bulid`\nhint: did you mean `build`?"),
        (["xyzzy"], "error: there is no verb `xyzzy`\nhint: `sandboxfile --help` lists the verbs"),
        (["-q"], "error: no verb was given\nhint: `sandboxfile --help` lists the verbs"),
        (["--", "x"], "error: `--` stands where a verb should\nhint: `sandboxfile --help` lists the verbs"),
        (["build", "--forc", "x"], "error: unknown option `--forc`\nhint: did you mean `--force`?"),
        (
            ["check", "extra"],
            "error: `extra` is one argument too many\nhint: `sandboxfile check --help` shows how to use it",
        ),
        (
            ["run", "."],
            "error: `run` needs a command\n"
            "hint: write it after `--`: `sandboxfile run . -- python3 --version`",
        ),
        (
            ["build", "--", "x"],
            "error: `build` takes no command after `--`\nhint: `sandboxfile build --help` shows how",
        ),
        (["plan", "-C", "nowhere"], "error: cannot go to the directory `nowhere`: no such file or directory"),
        (
            ["up", "--port", "99999"],
            "error: --port: `99999` is no port between 1 and 65535\n"
            "hint: `sandboxfile up --help` shows how to use it",
        ),
        (
            ["shell", "--timeout", "3x"],
            "error: --timeout: `3x` is no time such as 90s, 5m or 1h30m\n"
            "hint: `sandboxfile shell --help` shows how to use it",
        ),
        (["snapshots", "foo"], "error: `snapshots` cannot `foo`\nhint: it knows list, show and rm"),
        (["cache", "foo"], "error: `cache` cannot `foo`\nhint: it knows du, gc and check"),
        (["cache", "du", "--dry-run"], "error: `--dry-run` belongs to `cache gc`"),
        (["cache", "gc", "--full"], "error: `--full` belongs to `cache check`"),
        (["cache", "gc", "--by", "age"], "error: `--by` belongs to `cache du`"),
        (
            ["cache", "gc", "--max-size", "much"],
            "error: --max-size: `much` is no size such as 500MB or 20GB\n"
            "hint: `sandboxfile cache --help` shows how to use it",
        ),
        (
            ["explain", "--log", "--since", "1", "run-1"],
            "error: `--log`, `--since`, `--build` and `--builds` exclude each other",
        ),
        (["explain", "--log"], "error: `--log` needs a layer\nhint: `sandboxfile plan` names them"),
        (
            ["lock", "--check", "--refresh"],
            "error: `--check` and `--locked` change nothing, but `--update`, `--refresh` "
            "and `--accept-older` do",
        ),
        (["build", "--param", "x"], "error: `--param x` is not of the form NAME=VALUE"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(sandboxfile: Make, words: list[str], expected: str) -> None:
    sandboxfile().fake().run(*words).stdout("").stderr(expected).exits(2)


def test_a_usage_error_is_a_document_with_json(sandboxfile: Make) -> None:
    document = sandboxfile().run("bulid", "--json").exits(2).json()
    assert document["error"]["kind"] == "UsageError"
    assert document["error"]["exit"] == 2
    assert document["error"]["hint"] == "did you mean `build`?"


def test_a_verb_without_data_has_no_json(sandboxfile: Make) -> None:
    ended = sandboxfile().fake().run("shell", "--json").exits(2)
    ended.stderr("error: `shell` prints no data of its own, so it has no `--json`")


def test_the_options_of_every_verb_stand_before_and_after_it(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("--param", "a=1", "--locked", "build", "--param", "b=2=3", "--offline").exits(0)
    assert session.calls("load")[0]["params"] == {"a": "1", "b": "2=3"}
    assert session.calls("build") == [{"locked": True, "offline": True, "force": []}]


def test_minus_c_makes_every_path_relative_to_it(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    (session.directory / "sub").mkdir()
    session.run("-C", "sub", "build", "-f", "Other").exits(0)
    load = session.calls("load")[0]
    assert load["file"] == "Other"
    assert load["cwd"] == str(session.directory / "sub")


def test_options_after_the_double_dash_belong_to_the_command(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("run", "--", "sh", "-c", 'echo "$@"', "x", "--json", "--help", "--").stdout(
        "--json --help --"
    ).exits(0)


def test_version_is_said_by_verb_and_by_option(sandboxfile: Make) -> None:
    from sandboxfile import __version__

    sandboxfile().run("version").stdout(f"sandboxfile {__version__}").stderr("").exits(0)
    sandboxfile().run("--version").stdout(f"sandboxfile {__version__}").exits(0)
    assert sandboxfile().run("version", "--json").json()["sandboxfile"] == __version__
