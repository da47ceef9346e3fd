"""The real program, in a project directory, with a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


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
