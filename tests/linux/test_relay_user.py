"""The relay without privileges: an ordinary user, who may not open the tun device, and nobody's help."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from relay_world import FAR, NAME, OWN, SCRIPT, greet, listener, names, serving, world

import sandboxfile

pytestmark = [pytest.mark.host, pytest.mark.root]
PYTHON = "/usr/bin/python3"
PACKAGE = Path(sandboxfile.__file__).parent
BUSYBOX = Path("/bin/busybox")
AT_LEAST_3_11 = "import sys; sys.exit(sys.version_info < (3, 11))"


@pytest.fixture
def user() -> Iterator[str]:
    """A user without any rights but a subordinate range."""
    name = f"sbr{os.getpid() % 100000}"
    subprocess.run(["useradd", "--create-home", name], check=True)
    ranges = ["--add-subuids", "2200000-2265535", "--add-subgids", "2200000-2265535"]
    subprocess.run(["usermod", *ranges, name], check=True)
    yield name
    subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)


def root_file_system(path: Path) -> None:
    """A base of one static program."""
    with tarfile.open(path, "w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for name in ("sh", "nc", "nslookup", "cat"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)


def test_an_ordinary_users_sandbox_is_relayed_and_never_reaches_this_machine(
    user: str, tmp_path: Path
) -> None:
    if subprocess.run([PYTHON, "-c", AT_LEAST_3_11], check=False).returncode:
        pytest.skip("the user has no Python 3.11 outside of root's home")
    if not BUSYBOX.exists():
        pytest.skip("the base is made of busybox: sudo apt-get install busybox-static")
    home = Path(f"/home/{user}")
    home.chmod(0o700)
    root_file_system(home / "rootfs.tar")
    shutil.copytree(PACKAGE, home / "lib/sandboxfile", ignore=shutil.ignore_patterns("__pycache__"))
    script = home / SCRIPT.name
    shutil.copy(SCRIPT, script)
    subprocess.run(["chown", "--recursive", f"{user}:", home], check=True)
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
    become += ["env", f"PYTHONPATH={home}/lib", f"HOME={home}", f"PATH={os.environ['PATH']}"]
    request = {"home": str(home / "store"), "stack": [], "rootfs": str(home / "rootfs.tar")}
    heard: list[str] = []

    def note(connection: socket.socket) -> None:
        heard.append(str(connection.getpeername()))

    with world(tmp_path) as around, names(around) as asked:
        server, own = around.out_there(listener), around.on_machine(listener)
        with serving(server, greet) as port, serving(own, note) as own_port:
            commands = [
                ["/bin/nc", NAME, str(port)],
                *(["/bin/nc", "-w", "20", each, str(own_port)] for each in (OWN, "127.0.0.1", FAR)),
            ]
            told = around.run({**request, "commands": commands}, *become, python=PYTHON, script=script)
            step = around.run(
                {**request, "commands": commands[:1], "step": True}, *become, python=PYTHON, script=script
            )
    assert told.failed == step.failed == ""
    assert told.said[0] == [0, f"hello ::ffff:{OWN}\n", ""]
    assert step.said == [[0, f"hello ::ffff:{OWN}\n", ""]]
    assert [out for _, out, _ in told.said[1:]] == ["", "", ""]
    assert heard == []
    assert asked
    assert "the network is relayed, because /dev/net/tun cannot be opened" in told.warnings[0]
    assert list(told.warnings) == list(told.notices)
    assert len(step.notices) == 1
