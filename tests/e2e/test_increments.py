"""Only what changed is built, and the program says why."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]

PYTHON = """\
apt: [python3]
pip: [idna]
files:
  - {from: app.py, to: /app/app.py}
verify:
  - python3 --version
  - {run: python3 /app/app.py, stdout: '^3\\.'}
"""

Based = Callable[[str], Program]


@pytest.fixture
def built(based: Based) -> Program:
    """A project with apt, pip, files and checks, built."""
    program = based(PYTHON)
    program.write("import idna; print(idna.__version__)\n", "app.py")
    program("build")
    return program


def actions(program: Program) -> dict[str, str]:
    plan = json.loads(program("plan", "--json").stdout)
    return {node["name"]: node["action"] for node in (*plan["layers"], *plan["checks"])}


def with_lock(program: Program, old: str, new: str) -> None:
    text = (program.directory / "Sandboxfile").read_text()
    assert old in text
    program.write(text.replace(old, new))
    program("lock")


def test_a_second_build_does_nothing_and_prints_the_same_slug(built: Program) -> None:
    first = built("build", "--progress=json")
    # No network namespace but an empty one, no runtime, no mirror: an answer can come from the store only.
    built.prefix = ("unshare", "--net")
    built.env = {"SANDBOXFILE_RUNTIME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    second = built("build", "--progress=json")
    assert second.last == first.last
    assert second.tasks() == []


def test_one_more_pip_package_is_one_new_layer_and_the_checks(built: Program) -> None:
    before = actions(built)
    with_lock(built, "[idna]", "[idna, six]")
    after = actions(built)
    assert [node for node in after if node not in before] == ["pip-2"]
    assert after["pip-2"] == "build"
    assert after["files-1"] == "place"
    assert {kind for node, kind in after.items() if node.startswith("verify")} == {"check"}
    assert [n for n, kind in after.items() if kind == "build"] == ["pip-2"]
    ran = built("build", "--progress=json")
    assert [t for t in ran.tasks() if t.startswith("layer:") and t.count(":") == 1] == ["layer:pip-2"]
    assert built("run", "--", "python3", "-c", "import six, idna; print('both')").stdout == "both\n"


def test_one_more_apt_package_is_one_new_layer_and_files_are_placed_again(built: Program) -> None:
    with_lock(built, "[python3]", "[python3, jq]")
    after = actions(built)
    assert [n for n, kind in after.items() if kind == "build"] == ["apt-2"]
    assert after["files-1"] == "place"
    text = built("plan").stdout
    assert "+ jq" in text
    built("build")
    assert built("run", "--", "jq", "-n", "1+1").stdout == "2\n"


def test_run_steps_run_again_when_packages_below_them_change_and_plan_says_why(based: Based) -> None:
    program = based("run:\n  - echo made > /etc/made\n")
    program("build")
    program.write((program.directory / "Sandboxfile").read_text() + "apt: [jq]\n")
    program("lock")
    plan = json.loads(program("plan", "--json").stdout)
    (reason,) = [layer["reason"] for layer in plan["layers"] if layer["name"] == "run-1"]
    assert "apt-1" in reason["text"]
    program("build")
    assert program("run", "--", "cat", "/etc/made").stdout == "made\n"


def test_changing_a_check_builds_no_layer(built: Program) -> None:
    text = (built.directory / "Sandboxfile").read_text()
    built.write(text.replace("python3 --version", "python3 -V"))
    after = actions(built)
    assert [n for n, kind in after.items() if kind == "build"] == []
    assert after["verify-1"] == "check"
    assert after["verify-2"] == "remembered"


def test_changing_a_file_builds_the_files_layer_only(built: Program) -> None:
    built.write("import idna; print(idna.__version__, 'new')\n", "app.py")
    after = actions(built)
    assert [n for n, kind in after.items() if kind == "build"] == ["files-1"]
    built("build")
    assert built("run", "--", "python3", "/app/app.py").stdout.endswith("new\n")


def test_a_wheel_built_from_source_is_built_again_when_it_is_gone(based: Based) -> None:
    program = based("apt: [python3]\npip: {packages: [docopt], build: [docopt]}\n")
    program("build")
    lock = (program.directory / "sandboxfile.lock").read_text()
    line = next(line for line in lock.splitlines() if "docopt-" in line)
    sha256 = line.partition("wheels")[2].partition("sha256")[2].split('"')[1]
    (program.home / "blobs" / "sha256" / sha256[:2] / sha256[2:]).unlink()
    ran = program("build", "--locked", "--force", "pip-1", "--progress=json")
    assert "wheel:docopt" in ran.tasks()
    assert program("run", "--", "python3", "-c", "import docopt").code == 0
    assert (program.directory / "sandboxfile.lock").read_text() == lock
