"""What fails, fails with one clear error, the right exit code, and nothing half-written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]

Based = Callable[[str], Program]


def slugs(program: Program) -> set[str]:
    return {line.split()[0] for line in program("snapshots", "list").stdout.splitlines() if line}


def test_a_failing_check_gates_the_slug_and_debug_opens_the_same_state(based: Based) -> None:
    program = based(
        "run:\n  - echo one > /etc/one\nverify:\n  - cat /etc/one\n  - 'cat /etc/one && cat /etc/two'\n"
    )
    before = slugs(program)
    ran = program("build", code=1)
    assert "Sandboxfile:7:" in ran.stderr
    assert "cat /etc/two" in ran.stderr
    assert "No such file or directory" in ran.stderr
    assert ran.stdout == ""
    assert slugs(program) == before

    ran = program("debug", stdin="cat /etc/one; touch /etc/two; pwd\n")
    assert ran.stdout == "one\n/\n"

    text = (program.directory / "Sandboxfile").read_text()
    program.write(text.replace("cat /etc/two", "test ! -e /etc/two"))
    fixed = program("build", "--progress=json")
    assert [t for t in fixed.tasks() if t.startswith("layer:")] == []


def test_a_failing_step_keeps_its_workspace_for_debug(based: Based) -> None:
    program = based(
        "env: {COLOUR: blue}\nrun:\n  - echo one > /etc/one\n"
        f"  - {{run: 'echo half > /etc/half; echo to stderr >&2; : {uuid4()}; exit 3', workdir: /etc}}\n"
    )
    ran = program("build", code=1)
    assert "exited with 3" in ran.stderr
    assert "Sandboxfile:6:" in ran.stderr
    assert "to stderr" in ran.stderr
    ran = program("debug", stdin="cat half one; echo $COLOUR; pwd; rm half\n")
    assert ran.stdout == "half\none\nblue\n/etc\n"
    # What is done in the shell is thrown away: a second one sees the same state.
    assert program("debug", stdin="cat half\n").stdout == "half\n"

    text = (program.directory / "Sandboxfile").read_text()
    program.write(text.replace("exit 3", "exit 0"))
    fixed = program("build", "--progress=json")
    assert [t for t in fixed.tasks() if t.startswith("layer:") and t.count(":") == 1] == ["layer:run-2"]


def test_a_step_that_wants_network_is_told_which_key_to_set(based: Based) -> None:
    program = based(
        "run:\n  - >-\n"
        "    echo 'deb [trusted=yes] http://mirror.example/debian trixie main' > /etc/apt/sources.list"
        " && apt-get -o APT::Update::Error-Mode=any -o Acquire::Retries=0 update\n"
    )
    ran = program("build", code=1)
    assert "network: true" in ran.stderr


def test_a_package_that_apt_does_not_know(based: Based) -> None:
    program = based("apt:\n  - jq\n  - jqq-does-not-exist\n  - libssl-devv\n")
    before = (program.directory / "sandboxfile.lock").read_text()
    ran = program("build", code=2)
    assert "Sandboxfile:5:5" in ran.stderr
    assert "Sandboxfile:6:5" in ran.stderr
    assert "libssl-dev" in ran.stderr
    assert (program.directory / "sandboxfile.lock").read_text() == before


def test_pip_requirements_that_conflict_show_the_explanation_of_uv(based: Based) -> None:
    program = based("apt: [python3]\npip: ['idna==3.7', 'idna==3.8']\n")
    ran = program("build", code=2)
    assert "idna" in ran.stderr
    assert re.search(r"unsatisfiable|conflict|incompatible|cannot be used", ran.stderr)
    assert "Sandboxfile:4:" in ran.stderr


def test_pip_without_an_interpreter(based: Based) -> None:
    program = based("pip: [idna]\n")
    ran = program("build", code=2)
    assert "python3" in ran.stderr
    assert "Sandboxfile:3:" in ran.stderr


def test_a_mirror_that_is_down(project: Program, tmp_path_factory: pytest.TempPathFactory) -> None:
    project.write("name: down\nbase: debian:13\n")
    project.home = tmp_path_factory.mktemp("fresh") / "home"
    project.env = {
        "SANDBOXFILE_APT_MIRROR": "http://127.0.0.1:9/debian",
        "SANDBOXFILE_APT_SECURITY_MIRROR": "http://127.0.0.1:9/debian-security",
    }
    ran = project("build", code=1)
    assert "127.0.0.1:9" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (project.directory / "sandboxfile.lock").exists()


def test_a_lock_written_by_a_newer_version(based: Based) -> None:
    program = based("")
    text = (program.directory / "sandboxfile.lock").read_text()
    program.write(re.sub(r"(?m)^version = 1$", "version = 99", text), "sandboxfile.lock")
    ran = program("build", code=2)
    assert "newer" in ran.stderr
    assert "version = 99" in (program.directory / "sandboxfile.lock").read_text()


def test_locked_refuses_a_stale_lock_and_names_the_request(based: Based) -> None:
    program = based("apt: [jq]\n")
    ran = program("build", "--locked", code=4)
    assert "jq" in ran.stderr
    assert "jq" in program("lock", "--check", code=4).stderr


def test_a_step_over_its_time_is_ended(based: Based) -> None:
    program = based("run:\n  - {run: 'sleep 300 & sleep 300', timeout: 1s}\n")
    ran = program("build", code=1)
    assert "after 1 s" in ran.stderr


def test_a_secret_reaches_the_step_and_nothing_else(based: Based) -> None:
    digest = hashlib.sha256(b"s3cr3t-value").hexdigest()
    program = based(
        "secrets: [TOKEN]\nrun:\n"
        f"  - run: test $(sha256sum < /run/secrets/TOKEN | head -c 64) = {digest};"
        f" cat /run/secrets/TOKEN; true {uuid4()}\n"
        "    secrets: [TOKEN]\n"
        "verify:\n  - test ! -e /run/secrets/TOKEN\n"
        "  - '! grep -r s3cr[3]t-value /etc /root /run /tmp /var/log'\n"
    )
    program.env = {"TOKEN": "s3cr3t-value"}
    ran = program("build", "--progress=json")
    assert "***" in ran.stderr
    assert "s3cr3t" not in ran.stderr + ran.stdout
    assert "s3cr3t" not in program("explain", "run-1", "--log").stdout
    assert b"s3cr3t" not in (program.directory / "sandboxfile.lock").read_bytes()


def test_a_secret_that_is_not_set_is_named_before_anything_runs(based: Based) -> None:
    program = based("secrets: [TOKEN]\nrun:\n  - {run: 'true', secrets: [TOKEN]}\n")
    ran = program("build", code=2)
    assert "TOKEN" in ran.stderr


def test_what_the_engine_cannot_do_is_refused_before_anything_is_built(based: Based) -> None:
    program = based(f"run:\n  - ': {uuid4()}'\n  - {{run: 'true', network: [data.example]}}\n")
    ran = program("build", "--progress=json", code=3)
    assert ran.tasks() == []
    assert "Sandboxfile:5:" in ran.stderr
    assert "network: true" in ran.stderr
