"""The whole escape suite again, as an ordinary user with a subordinate range of ids."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.root]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class User:
    """A user of this machine, made for the test."""

    name: str
    home: Path

    def run(self, *argv: object, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the user."""
        own = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "XDG_RUNTIME_DIR": ""}
        return subprocess.run(
            ["setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups", *map(str, argv)],
            cwd=self.home,
            env={**os.environ, **own, **env},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def user() -> Iterator[User]:
    name = f"sbe{os.getpid() % 100000}"
    subprocess.run(["useradd", "--create-home", "--home-dir", f"/home/{name}", name], check=True)
    ranges = ["--add-subuids", "2100000-2165535", "--add-subgids", "2100000-2165535"]
    subprocess.run(["usermod", *ranges, name], check=True)
    home = Path(f"/home/{name}")
    home.chmod(0o700)
    yield User(name, home)
    subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)


@pytest.fixture
def python(user: User, tmp_path: Path) -> Path:
    """An interpreter of the user's own with the installed package, beside a copy of the suite."""
    tool = uv.find_uv_bin()
    wheels, venv = tmp_path / "wheels", user.home / "venv"
    subprocess.run([tool, "build", "--quiet", "--wheel", "--out-dir", wheels, ROOT], check=True)
    subprocess.run([tool, "venv", "--quiet", "--python", "/usr/bin/python3", venv], check=True)
    install = [tool, "pip", "install", "--quiet", "--link-mode", "copy", "--python", venv / "bin/python"]
    subprocess.run([*install, *wheels.glob("*.whl"), "pytest", "pytest-timeout", "hypothesis"], check=True)
    for name in ("pyproject.toml", "tests/conftest.py", "docs/dev/escape-suite.md"):
        (user.home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, user.home / name)
    shutil.copytree(ROOT / "tests/security", user.home / "tests/security")
    subprocess.run(["chown", "--recursive", f"{user.name}:{user.name}", user.home], check=True)
    return venv / "bin/python"


def test_the_suite_passes_for_an_ordinary_user(user: User, python: Path) -> None:
    options = ("-p", "no:cacheprovider", "--basetemp", user.home / "run", "-q", "tests/security")
    store = str(user.home / "store")
    homes = {"SANDBOXFILE_HOME": store, "SANDBOXFILE_TEST_HOME": store}
    done = user.run(python, "-m", "pytest", *options, CI="", **homes)
    user.run(python, "-m", "sandboxfile", "--home", user.home / "store", "cache", "gc", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
