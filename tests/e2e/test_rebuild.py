"""`verify --rebuild` and `diff`: what is equal is said to be, what is not is named with its likely cause."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]


def test_a_step_that_reads_a_random_number_is_found(based: Callable[[str], Program]) -> None:
    program = based(
        """\
files: [{content: "same", to: /etc/same}]
run:
  - cat /proc/sys/kernel/random/uuid > /opt/random
  - echo same > /opt/same
"""
    )
    program("build")
    ran = program("verify", "--rebuild", "--json", code=1)
    layers = {layer["layer"]: layer for layer in json.loads(ran.stdout)["layers"]}
    assert {name: layer["equal"] for name, layer in layers.items()} == {
        "base": True, "files-1": True, "run-1": False, "run-2": True,
    }  # fmt: skip
    (found,) = layers["run-1"]["differences"]
    assert (found["path"], found["kinds"]) == ("/opt/random", ["content"])
    assert found["step"] == "step `cat /proc/sys/kernel/random/uuid > /opt/random`"
    assert "3 of 4 layers equal to the byte" in ran.stderr
    assert list((program.home / "workspaces").iterdir()) == []


def test_what_is_not_built_is_not_rebuilt(based: Callable[[str], Program]) -> None:
    program = based("run: [echo never built]\n")
    ran = program("verify", "--rebuild", code=1)
    assert "1 layer of this environment is not built" in ran.stderr


def test_two_snapshots_are_compared(based: Callable[[str], Program]) -> None:
    program = based("apt: [jq]\nfiles: [{content: one, to: /etc/one}]\nenv: {A: '1'}\n")
    first = program("build").last
    program.write("name: test\nbase: debian:13\nfiles: [{content: two!, to: /etc/one}]\nenv: {A: '2'}\n")
    second = program("build").last
    found = json.loads(program("diff", first, second, "--json").stdout)
    names = [(each["kind"], each["name"], each["after"]) for each in found["packages"]]
    assert names == [("apt", "jq", None), ("apt", "libjq1", None), ("apt", "libonig5", None)]
    files = {each["path"]: each["changes"] for each in found["files"]}
    assert files["/etc/one"] == ["content"]
    assert files["/usr/bin/jq"] == ["removed"]
    assert found["config"] == {"env": [{"A": "1"}, {"A": "2"}]}
    told = program("diff", first, second)
    assert "-  apt jq" in told.stdout
    assert "3 packages" in told.stderr
    assert program("diff", first, first).stdout == ""
