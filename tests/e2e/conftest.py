"""Projects built by the real program, on the store that the session shares."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import uv

from tests.e2e.lock_world import archive_server as archive_server
from tests.e2e.lock_world import archive_signer as archive_signer
from tests.e2e.lock_world import old_base as old_base
from tests.e2e.lock_world import world as world
from tests.e2e.program import Program as Program
from tests.e2e.program import Ran as Ran

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class User:
    """A user of this machine."""

    name: str
    home: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command as the user."""
        return ("setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups")


_NUMBERS = count(1)


@pytest.fixture
def user() -> Iterator[User]:
    """A user without privileges, made for the test: a home nobody else can enter, and subordinate ids."""
    name = f"sbx{os.getpid() % 100000}-{next(_NUMBERS)}"
    subprocess.run(["useradd", "--create-home", "--home-dir", f"/home/{name}", name], check=True)
    ranges = ["--add-subuids", "2000000-2065535", "--add-subgids", "2000000-2065535"]
    subprocess.run(["usermod", *ranges, name], check=True)
    home = Path(f"/home/{name}")
    home.chmod(0o700)
    yield User(name, home)
    # What the user's processes leave for a moment must not keep the user here.
    subprocess.run(["pkill", "-KILL", "-u", name], check=False)
    subprocess.run(["userdel", "--force", "--remove", name], check=False, capture_output=True)


def install_for(user: User, scratch: Path) -> str:
    """Install the project's wheel into a virtual environment of the user's own; the program's path."""
    tool = uv.find_uv_bin()
    wheels = scratch / "wheels"
    venv = user.home / "venv"
    subprocess.run([tool, "build", "--quiet", "--wheel", "--out-dir", wheels, ROOT], check=True)
    subprocess.run([tool, "venv", "--quiet", "--python", "/usr/bin/python3", venv], check=True)
    install = [tool, "pip", "install", "--quiet", "--link-mode", "copy", "--python", venv / "bin/python"]
    subprocess.run([*install, *wheels.glob("*.whl")], check=True)
    return str(venv / "bin/sandboxfile")


@pytest.fixture
def project(tmp_path: Path, shared_home: Path) -> Program:
    """An empty project on the shared store."""
    directory = tmp_path / "project"
    directory.mkdir()
    return Program(directory, shared_home)


@pytest.fixture
def based(project: Program, base_lock: str) -> Callable[[str], Program]:
    """A project with this Sandboxfile (after its base line), whose base is locked and built already."""

    def make(rest: str) -> Program:
        project.write("name: test\nbase: debian:13\n" + rest)
        project.write(base_lock, "sandboxfile.lock")
        return project

    return make
