"""Projects built by the real program, on the store that the session shares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """How a run of the program ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def last(self) -> str:
        """The last line of stdout."""
        return self.stdout.rstrip("\n").rpartition("\n")[2]

    def events(self) -> list[dict[str, object]]:
        """The events of a run with `--progress=json`."""
        return [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]

    def tasks(self) -> list[str]:
        """The names of the tasks that started."""
        return [str(e["task"]) for e in self.events() if e.get("event") == "task-started"]


@dataclass
class Program:
    """The program, in a project directory, with a store."""

    directory: Path
    home: Path
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    program: tuple[str, ...] = (sys.executable, "-m", "sandboxfile")

    def argv(self, *args: str) -> list[str]:
        """The command line of a run."""
        return [*self.prefix, *self.program, "--home", str(self.home), *args]

    def environ(self) -> dict[str, str]:
        """The environment of a run."""
        return {**os.environ, "NO_COLOR": "1", **self.env}

    def start(self, *args: str, **options: object) -> subprocess.Popen[str]:
        """Start a run; the caller waits."""
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            self.argv(*args),
            cwd=self.directory,
            env=self.environ(),
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options},
        )

    def __call__(self, *args: str, code: int = 0, stdin: str = "") -> Ran:
        """Run to the end; fail the test when the exit code is another."""
        done = subprocess.run(
            self.argv(*args),
            cwd=self.directory,
            env=self.environ(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert ran.code == code, f"exit {ran.code}\n--- stdout\n{ran.stdout}\n--- stderr\n{ran.stderr}"
        return ran

    def write(self, text: str, name: str = "Sandboxfile") -> None:
        """Write a file of the project."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@dataclass(frozen=True)
class User:
    """A user of this machine."""

    name: str
    home: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command as the user."""
        return ("setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups")


@pytest.fixture
def user() -> Iterator[User]:
    """A user without privileges, made for the test: a home nobody else can enter, and subordinate ids."""
    name = f"sbx{os.getpid() % 100000}"
    subprocess.run(["useradd", "--create-home", "--home-dir", f"/home/{name}", name], check=True)
    ranges = ["--add-subuids", "2000000-2065535", "--add-subgids", "2000000-2065535"]
    subprocess.run(["usermod", *ranges, name], check=True)
    home = Path(f"/home/{name}")
    home.chmod(0o700)
    yield User(name, home)
    subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)


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
