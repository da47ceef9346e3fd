"""The same without privileges: an ordinary user with a subordinate id range, and the installed wheel."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import Program, User, install_for

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.root]

SMALL = """\
name: small
base: debian:13
apt: [jq]
files:
  - {content: "owned\\n", to: /srv/note, owner: "33:33", mode: "0640"}
run:
  - id -u > /etc/built-by
verify:
  - test -s /etc/built-by
  - jq --version
start:
  command: |-
    exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 8000, Listen => 9) or die;
    while ($c = $s->accept) { print $c "HTTP/1.0 200 OK\\r\\n\\r\\nhello"; close $c }'
  port: 8000
"""


@pytest.fixture
def program(user: User, tmp_path: Path) -> Program:
    """The program as the user has it: the wheel, installed in a virtual environment of the user's own."""
    installed = install_for(user, tmp_path)
    directory = user.home / "project"
    directory.mkdir()
    (directory / "Sandboxfile").write_text(SMALL)
    subprocess.run(["chown", "--recursive", f"{user.name}:{user.name}", user.home], check=True)
    return Program(
        directory,
        user.home / "store",
        env={"HOME": str(user.home), "USER": user.name, "LOGNAME": user.name, "XDG_RUNTIME_DIR": ""},
        prefix=user.prefix,
        program=(installed,),
    )


def test_an_ordinary_user_builds_runs_and_lists(program: Program, user: User) -> None:
    slug = program("build").last
    ran = program("run", "--", "sh", "-c", "cat /etc/built-by; stat -c '%u:%g %a' /srv/note; id -u")
    assert ran.stdout == "0\n33:33 640\n0\n"
    assert slug in program("snapshots", "list").stdout
    again = program("build", "--progress=json")
    assert again.last == slug
    assert again.tasks() == []
    url, sandbox = program("up", "--detach").stdout.splitlines()
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"hello"
    assert sandbox in program("sandboxes").stdout
    assert program("run", sandbox, "--", "sh", "-c", "cat /etc/built-by; exit 3", code=3).stdout == "0\n"
    program("sandboxes", "kill", sandbox)
    assert list((user.home / "store" / "sandboxes").iterdir()) == []
    program("snapshots", "rm", slug)
    program("cache", "gc", "--keep-days", "0")
    assert list((user.home / "store" / "layers").iterdir()) == []


def test_an_ordinary_user_builds_from_a_vendored_file_without_network(
    program: Program, user: User, shared_home: Path, base_lock: str, tmp_path: Path
) -> None:
    maker = Program(tmp_path / "maker", shared_home)
    maker.write(SMALL)
    maker.write(base_lock, "sandboxfile.lock")
    slug = maker("build").last
    tar = program.directory / "packages.tar"
    maker("vendor", str(tar))
    program.prefix = ("unshare", "--net", *user.prefix)
    ran = program("build", "--vendor", str(tar), "--progress=json")
    assert ran.last == slug
    assert "fetch:base" in ran.tasks()
    texts = {(each.directory / "sandboxfile.lock").read_text() for each in (program, maker)}
    assert len(texts) == 1
