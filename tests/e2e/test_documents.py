"""Every kind of base, files of every kind, virtual environments, parameters and recipes: built and used."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]

Based = Callable[[str], Program]


def test_a_snapshot_is_a_base(based: Based) -> None:
    program = based("env: {BELOW: kept}\nrun:\n  - echo below > /etc/below\n")
    slug = program("build").last
    program.write(f"name: above\nbase: snapshot:{slug}\nrun:\n  - cat /etc/below > /etc/above\n")
    (program.directory / "sandboxfile.lock").unlink()
    program("build")
    assert program("run", "--", "cat", "/etc/above").stdout == "below\n"


def test_a_snapshot_that_does_not_exist_is_no_base(project: Program) -> None:
    project.write("name: above\nbase: snapshot:nowhere-0123456789abcdef\n")
    ran = project("build", code=2)
    assert "nowhere-0123456789abcdef" in ran.stderr
    assert "Sandboxfile:2:" in ran.stderr


def test_a_root_filesystem_tar_is_a_base(project: Program, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/origin").write_text("a tar\n")
    subprocess.run(["cp", "-L", "/bin/busybox", root / "bin/sh"], check=True)
    archive = project.directory / "root.tar"
    subprocess.run(["tar", "-C", root, "--owner=0", "--group=0", "-cf", archive, "."], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    project.write(
        f"name: tarred\nbase: {{rootfs: root.tar, sha256: {digest}}}\nfiles:\n  - {{content: x, to: /y}}\n"
    )
    project("build")
    assert project("run", "--", "sh", "-c", "read a < /etc/origin; echo $a").stdout == "a tar\n"
    project.write(f"name: tarred\nbase: {{rootfs: root.tar, sha256: {'0' * 64}}}\n")
    assert "root.tar" in project("build", code=1).stderr


def test_scratch_holds_what_is_put_there(project: Program) -> None:
    project.write("name: bare\nbase: scratch\nfiles:\n  - {from: sh, to: /bin/sh, mode: '0755'}\n")
    subprocess.run(["cp", "-L", "/bin/busybox", project.directory / "sh"], check=True)
    project("build")
    assert project("run", "--", "/bin/sh", "-c", "echo *").stdout.startswith("bin")


FILES = """\
files:
  - {from: tree, to: /srv/tree}
  - {from: "*.conf", to: /etc/demo/}
  - {content: "inline\\n", to: /srv/inline, mode: "0600", owner: "33:34"}
  - {content: "named\\n", to: /srv/named, owner: www-data}
  - {content: "linked\\n", to: /bin/linked, mode: "0755"}
  - {content: "late\\n", to: /tmp/late}
verify:
  - stat -c '%a %u:%g' /srv/inline
"""


def test_files_keep_modes_owners_links_and_names(based: Based) -> None:
    program = based(FILES)
    tree = program.directory / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/ünïcode näme").write_text("ü\n")
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "ignored.log").write_text("no")
    os.symlink("sub/ünïcode näme", tree / "link")
    for name in ("a.conf", "b.conf", "c.txt"):
        (program.directory / name).write_text(name)
    program.write("*.log\n", ".sandboxfileignore")
    program("build")
    script = (
        "cat '/srv/tree/link'; /srv/tree/run.sh; ls /srv/tree /etc/demo; readlink /srv/tree/link;"
        " stat -c '%a %U:%G' /srv/inline /srv/named /tmp /usr/bin/linked;"
        " readlink /bin; cat /bin/linked /tmp/late"
    )
    assert program("run", "--", "sh", "-c", script).stdout.splitlines() == [
        "ü",
        "ran",
        "/etc/demo:",
        "a.conf",
        "b.conf",
        "",
        "/srv/tree:",
        "link",
        "run.sh",
        "sub",
        "sub/ünïcode näme",
        "600 www-data:backup",
        "644 www-data:www-data",
        "1777 root:root",
        "755 root:root",
        "usr/bin",
        "linked",
        "late",
    ]


def test_a_virtual_environment_comes_first_on_the_path(based: Based) -> None:
    program = based("apt: [python3-venv]\npip: {packages: [six], venv: /opt/venv}\n")
    program("build")
    script = "import six, sys; print(sys.prefix, six.__file__.startswith('/opt/venv'))"
    assert program("run", "--", "python", "-c", script).stdout == "/opt/venv True\n"


def test_parameters_reach_the_environment_and_move_the_slug(based: Based) -> None:
    program = based(
        "params:\n  colour: {type: string, default: blue}\nrun:\n  - echo {{ params.colour }} > /etc/c\n"
    )
    blue = program("build").last
    red = program("build", "--param", "colour=red").last
    assert blue != red
    assert program("run", red, "--", "cat", "/etc/c").stdout == "red\n"
    assert program("run", blue, "--", "cat", "/etc/c").stdout == "blue\n"
    assert "colour" in program("build", "--param", "color=red", code=2).stderr


def test_a_step_and_a_sandbox_run_as_the_user_they_name(based: Based) -> None:
    program = based(
        "user: www-data\nworkdir: /var/tmp\nrun:\n  - {run: 'id -u > /etc/r', user: root}\n"
        "  - id -un > /var/tmp/w\nverify:\n  - test $(id -un) = www-data\n"
    )
    program("build")
    assert program("run", "--", "sh", "-c", "id -un; pwd; cat w").stdout == "www-data\n/var/tmp\nwww-data\n"


def test_what_a_build_installed_is_what_the_lock_says(based: Based) -> None:
    program = based("apt: [jq]\n")
    program("build")
    text = program("run", "--", "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\\n").stdout
    installed = {tuple(line.split()) for line in text.splitlines()}
    from sandboxfile.spec.lockfile import load

    lock = load((program.directory / "sandboxfile.lock").read_text())
    assert installed == {(row.name, row.version, row.arch) for row in lock.installed_debs().values()}
    marks = program("run", "--", "cat", "/var/lib/apt/extended_states").stdout
    assert "libjq1" in marks
    assert "Package: jq\n" not in marks


def test_plan_says_the_same_as_json(based: Based) -> None:
    program = based("run:\n  - 'true'\n")
    plan = json.loads(program("plan", "--json").stdout)
    assert plan["slug"] in program("plan").stdout
    assert program("build").last == plan["slug"]
