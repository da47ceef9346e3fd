"""Default archives as mmdebstrap knows them, and the values of secrets."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxfile.errors import HostError, Source, Span, UsageError
from sandboxfile.inputs.environment import SuiteSource, default_mirrors, parse_sources, secret_values
from sandboxfile.spec.model import Secret

SPAN = Span(Source("Sandboxfile", "secrets: [token]\n"), 1, 11, 5)


def test_the_lines_of_a_sources_list() -> None:
    text = """
# comment
deb http://mirror.example/debian/ stable main contrib
deb [signed-by="/keys/x.gpg" arch=amd64] https://mirror.example/debian-security stable-security main # y
deb-src http://mirror.example/debian stable main
deb http://security.mirror.example/ubuntu noble-security main
"""
    assert parse_sources(text) == (
        SuiteSource("debian", "http://mirror.example/debian", "stable", ("main", "contrib")),
        SuiteSource(
            "debian-security", "https://mirror.example/debian-security", "stable-security", ("main",)
        ),
        SuiteSource("ubuntu-security", "http://security.mirror.example/ubuntu", "noble-security", ("main",)),
    )


@pytest.mark.host
def test_a_stable_suite_has_its_updates_and_security_suites(tmp_path: Path) -> None:
    sources = default_mirrors("trixie", tmp_path / "cache")
    assert [(s.archive, s.suite, s.components) for s in sources] == [
        ("debian", "trixie", ("main",)),
        ("debian", "trixie-updates", ("main",)),
        ("debian-security", "trixie-security", ("main",)),
    ]
    assert all(s.url.startswith("http") and not s.url.endswith("/") for s in sources)
    assert default_mirrors("trixie") == sources


def fake_mmdebstrap(directory: Path, body: str) -> None:
    """A program of that name which stands for another version of it."""
    directory.mkdir(exist_ok=True)
    program = directory / "mmdebstrap"
    program.write_text(f"#!/bin/sh\nset -e\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


WRITES = """
for last; do :; done
mkdir -p root/etc/apt
echo "deb http://mirror.example/%s stable main" > root/etc/apt/sources.list
tar -C root -cf "$last" .
echo started >> %s
"""


def test_the_answer_is_remembered_until_the_tool_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, tools, cache = tmp_path / "log", tmp_path / "tools", tmp_path / "cache"
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    fake_mmdebstrap(tools, WRITES % ("one", log))
    first = default_mirrors("stable", cache)
    assert first == (SuiteSource("one", "http://mirror.example/one", "stable", ("main",)),)
    assert default_mirrors("stable", cache) == first
    assert log.read_text() == "started\n"

    fake_mmdebstrap(tools, WRITES % ("other", log))
    assert default_mirrors("stable", cache)[0].archive == "other"
    assert log.read_text() == "started\n" * 2


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"tool": 1, "sources": [{"archive": "x"}]}', "\0"])
def test_a_damaged_memory_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    tools, cache = tmp_path / "tools", tmp_path / "cache"
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    fake_mmdebstrap(tools, WRITES % ("one", tmp_path / "log"))
    before = default_mirrors("stable", cache)
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_text(damage)
    assert default_mirrors("stable", cache) == before
    assert json.loads(file.read_text()) == json.loads(whole)


def test_what_mmdebstrap_says_when_it_fails_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    fake_mmdebstrap(tmp_path / "tools", "echo 'E: no such thing' >&2; exit 25")
    with pytest.raises(HostError) as caught:
        default_mirrors("stable", tmp_path / "cache")
    assert caught.value.details == ("E: no such thing",)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("suite", ["", "--help", "a/b", "../x", "A", "a b"])
def test_no_suite_can_be_an_option_or_a_path(tmp_path: Path, suite: str) -> None:
    with pytest.raises(UsageError):
        default_mirrors(suite, tmp_path)


@pytest.mark.host
@pytest.mark.root
def test_an_ordinary_user_without_subordinate_ids_gets_the_same_answer() -> None:
    program = (
        "import os\n"
        "import tempfile, tarfile, subprocess, shutil, encodings.idna\n"
        "from sandboxfile.inputs.environment import default_mirrors\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print([(s.archive, s.url, s.suite) for s in default_mirrors('trixie')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == str([(s.archive, s.url, s.suite) for s in default_mirrors("trixie")])


def test_a_missing_mmdebstrap_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(HostError) as caught:
        default_mirrors("trixie")
    assert "apt-get install mmdebstrap" in (caught.value.hint or "")


def test_secrets_come_from_variables_and_files_with_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x00\xffvalue\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/token").write_bytes(b"t")
    secrets = (
        Secret("a", env="A"),
        Secret("b", file="key"),
        Secret("c", file="~/token"),
        Secret("d", file=str(tmp_path / "key")),
        Secret("PLAIN"),
    )
    environ = {"A": "grüß", "PLAIN": "p", "HOME": str(tmp_path / "home")}
    assert secret_values(secrets, environ, tmp_path) == {
        "a": "grüß".encode(),
        "b": b"\x00\xffvalue\n",
        "c": b"t",
        "d": b"\x00\xffvalue\n",
        "PLAIN": b"p",
    }


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (Secret("token", env="TOKEN", span=SPAN), "the environment variable TOKEN is not set"),
        (Secret("token", span=SPAN), "the environment variable token is not set"),
        (Secret("token", env="EMPTY", span=SPAN), "the environment variable EMPTY is empty"),
        (Secret("token", file="missing", span=SPAN), "the file missing cannot be read"),
        (Secret("token", file="empty", span=SPAN), "the file empty is empty"),
    ],
)
def test_a_missing_secret_is_named_where_it_is_declared(tmp_path: Path, secret: Secret, message: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError) as caught:
        secret_values((secret,), {"EMPTY": ""}, tmp_path)
    assert caught.value.message.startswith("secret token: ")
    assert message in caught.value.message
    assert caught.value.span == SPAN


def test_all_missing_secrets_are_named_and_no_value_is(tmp_path: Path) -> None:
    secrets = (Secret("good"), Secret("one", span=SPAN), Secret("two", file="nowhere"))
    with pytest.raises(UsageError) as caught:
        secret_values(secrets, {"good": "hunter2"}, tmp_path)
    assert caught.value.message == "secrets one, two are missing"
    assert [detail.partition(":")[0] for detail in caught.value.details] == ["one", "two"]
    assert "hunter2" not in str((caught.value, caught.value.details, caught.value.hint))
