"""A small language for tests that read like a terminal session:

sandboxfile('''
    base: debian:13
    stesp: []
''').run("check").stderr("error: …").exits(2)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("driver.py")


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    out: str
    err: str

    def stdout(self, expected: str) -> Ended:
        """stdout is exactly this text (indentation and outer empty lines taken away)."""
        assert text(self.out) == text(expected)
        return self

    def stderr(self, expected: str) -> Ended:
        """stderr is exactly this text."""
        assert text(self.err) == text(expected)
        return self

    def exits(self, code: int) -> Ended:
        """The exit code is this one."""
        assert self.code == code, f"exit {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"
        return self

    def json(self) -> Any:
        """stdout, which is one JSON document."""
        return json.loads(self.out)


@dataclass
class Session:
    """A project directory and how the program is run in it."""

    directory: Path
    script: dict[str, Any] | None = None
    env: dict[str, str] = field(default_factory=dict)

    def fake(self, **script: Any) -> Session:
        """Use the fake client, scripted."""
        self.script = script
        return self

    def argv(self, *words: str) -> list[str]:
        """The command line of a run."""
        program = [str(DRIVER)] if self.script is not None else ["-m", "sandboxfile"]
        return [sys.executable, *program, *words]

    def environment(self) -> dict[str, str]:
        """The environment of a run."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOXFILE_")}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        mine = {
            "PYTHONPATH": os.pathsep.join(paths),
            "SANDBOXFILE_HOME": str(self.directory / "home"),
            "FAKE_CLIENT": json.dumps(self.script or {}),
            "FAKE_RECORD": str(self.directory / "calls"),
            "COLUMNS": "100",
            "TMPDIR": str(self.directory),
        }
        return {**kept, **mine, **self.env}

    def run(self, *words: str, stdin: str = "") -> Ended:
        """Run the program to its end."""
        done = subprocess.run(
            self.argv(*words),
            cwd=self.directory,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start the program; the caller waits."""
        # Whoever runs the tests may have these ignored (nohup does), and that is inherited.
        usual = ("env", "--default-signal=HUP,INT,TERM")
        return subprocess.Popen(
            [*usual, *self.argv(*words)],
            cwd=self.directory,
            env=self.environment(),
            text=True,
            **options,
        )

    def calls(self, what: str) -> list[dict[str, Any]]:
        """The calls of one kind that the fake client noted."""
        path = self.directory / "calls"
        noted = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [values for name, values in noted if name == what]


def text(block: str) -> str:
    """A block without its indentation, outer empty lines and spaces at line ends."""
    lines = [line.rstrip() for line in textwrap.dedent(block).splitlines()]
    return "\n".join(lines).strip("\n")


@pytest.fixture
def sandboxfile(tmp_path: Path) -> Callable[..., Session]:
    """A session in a directory that holds this Sandboxfile (none when the text is None)."""

    def make(document: str | None = None) -> Session:
        if document is not None:
            (tmp_path / "Sandboxfile").write_text(text(document) + "\n", encoding="utf-8")
        return Session(tmp_path)

    return make
