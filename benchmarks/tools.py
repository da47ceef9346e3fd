"""The tools that are compared. Each works in a directory of its own, which is fresh in every round."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from job import BASE_ONLY, MORE_APT, MORE_PIP, OTHER_PIP, PROXIES, Job, write_context
from meter import Meter

RUNS = 10  # samples of `run -- true` in one round
IMAGE = "localhost/benchmark"
BASE_IMAGE = "localhost/benchmark-base"


@dataclass(frozen=True)
class Cost:
    """What one command took: seconds of wall clock, processor seconds and bytes of the whole machine."""

    seconds: float
    processor: float = 0.0
    memory: int = 0


Sample = tuple[str, Cost]


class BenchmarkError(Exception):
    """A tool did not do its job; the text ends with what it last said."""


class Tool(Protocol):
    """One contestant in one round."""

    name: str

    def version(self) -> str:
        """What it says its version is."""
        ...

    def prepare(self, directory: Path, base: Path) -> None:
        """Everything that is not timed: daemons, the base image."""
        ...

    def measure(self, job: Job) -> Iterator[Sample]:
        """Do the job and its variations; a row's name and its seconds for each."""
        ...

    def close(self) -> None:
        """Stop what `prepare` started. Called on every path, also after a failed `prepare`."""
        ...


class Shell:
    """Runs commands, keeping what they say in one log."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.environment = dict(environment)

    def time(self, argv: Sequence[str | Path], cwd: Path | None = None) -> Cost:
        """What one command took. Raises BenchmarkError when it fails."""
        with self.log.open("ab") as log, Meter() as meter:
            log.write(f"$ {' '.join(map(str, argv))}\n".encode())
            log.flush()
            start = time.perf_counter()
            code = subprocess.run(
                argv,
                check=False,
                cwd=cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).returncode
            seconds = time.perf_counter() - start
        if code:
            said = self.log.read_text(errors="replace").splitlines()[-15:]
            raise BenchmarkError(f"exit {code}: {' '.join(map(str, argv))}\n  " + "\n  ".join(said))
        return Cost(seconds, meter.processor, meter.memory)

    def answer(self, argv: Sequence[str | Path]) -> str:
        """The standard output of a command."""
        done = subprocess.run(argv, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()


class Sandboxfile:
    """This project, by its console script."""

    name = "sandboxfile"

    def __init__(self, script: Path) -> None:
        self.script = script

    def version(self) -> str:
        done = subprocess.run([self.script, "version"], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def prepare(self, directory: Path, base: Path) -> None:  # noqa: ARG002 - it bootstraps its own
        self.home = directory / "store"
        self.project = directory / "project"
        write_context(self.project)
        self.shell = Shell(directory / "log", os.environ)
        self.base_project = directory / "base"
        self.base_project.mkdir()
        (self.base_project / "Sandboxfile").write_text(BASE_ONLY)

    def _build(self, *more: str, project: Path | None = None) -> Cost:
        command: list[str | Path] = [
            self.script,
            "--home",
            self.home,
            "-C",
            project or self.project,
            "build",
            *more,
        ]
        return self.shell.time(command)

    def measure(self, job: Job) -> Iterator[Sample]:
        yield "base", self._build(project=self.base_project)
        # The base layer stays, the indexes it was resolved with go: the job starts from nothing else.
        for index in (self.home / "indexes").iterdir():
            if index.is_dir():
                shutil.rmtree(index)
            else:
                index.unlink()
        document, lock = self.project / "Sandboxfile", self.project / "sandboxfile.lock"
        document.write_text(job.sandboxfile())
        yield "cold", self._build()
        locked = lock.read_bytes()
        yield "unchanged", self._build()
        yield "run", self._run()
        for _ in range(RUNS - 1):
            yield "run", self._run()
        yield "warm", self._build("--force", "apt-1", "--force", "pip-1")
        document.write_text(job.with_pip(MORE_PIP).sandboxfile())
        yield "pip", self._build()
        yield "pip-locked", self._build("--force", "pip-2")
        lock.write_bytes(locked)
        document.write_text(job.with_apt(MORE_APT).sandboxfile())
        yield "apt", self._build()
        yield "apt-locked", self._build("--force", "apt-2")
        lock.write_bytes(locked)
        document.write_text(job.with_other_pip(*OTHER_PIP).sandboxfile())
        yield "pip-moved", self._build()
        lock.write_bytes(locked)
        document.write_text(job.sandboxfile())
        change_file(self.project)
        yield "file", self._build()
        document.write_text(job.with_other_check().sandboxfile())
        yield "check", self._build()

    def _run(self) -> Cost:
        command: list[str | Path] = [
            self.script,
            "--home",
            self.home,
            "-C",
            self.project,
            "run",
            ".",
            "--",
            "true",
        ]
        return self.shell.time(command)

    def close(self) -> None:
        pass


class BuildKit:
    """Docker's BuildKit in a daemon of our own; `docker run` for the sandbox row. Needs root."""

    name = "BuildKit"

    def __init__(self, *, mounts: bool = False) -> None:
        self.mounts = mounts
        if mounts:
            self.name = "BuildKit, cache mounts"
        # Debian's client is of the same version as its daemon and has BuildKit built in.
        self.docker = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
        self.daemon: subprocess.Popen[bytes] | None = None

    def version(self) -> str:
        done = subprocess.run([self.docker, "--version"], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def prepare(self, directory: Path, base: Path) -> None:
        socket = directory / "docker.sock"
        config = directory / "daemon.json"
        config.write_text("{}")
        self.context = directory / "context"
        write_context(self.context)
        environment = os.environ | {
            "DOCKER_HOST": f"unix://{socket}",
            "DOCKER_CONFIG": os.fspath(directory / "client"),
            "DOCKER_BUILDKIT": "1",
        }
        self.shell = Shell(directory / "log", environment)
        with (directory / "dockerd.log").open("wb") as log:
            self.daemon = subprocess.Popen(
                [
                    *("dockerd", "--config-file", config, "--data-root", directory / "data"),
                    *("--exec-root", directory / "exec", "--pidfile", directory / "docker.pid"),
                    *("--host", f"unix://{socket}", "--storage-driver", "overlay2"),
                    *("--bridge=none", "--iptables=false", "--ip6tables=false"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_daemon(directory / "dockerd.log")
        self.shell.time([self.docker, "import", base, BASE_IMAGE])

    def _await_daemon(self, log: Path) -> None:
        assert self.daemon is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.daemon.poll() is None:
            ready = subprocess.run(
                [self.docker, "version"], check=False, env=self.shell.environment, capture_output=True
            )
            if ready.returncode == 0:
                return
            time.sleep(0.2)
        said = "\n  ".join(log.read_text(errors="replace").splitlines()[-10:])
        raise BenchmarkError(f"dockerd did not come up:\n  {said}")

    def _build(self, job: Job, *more: str) -> Cost:
        (self.context / "Dockerfile").write_text(job.dockerfile(BASE_IMAGE))
        proxies = [part for name in PROXIES if name in os.environ for part in ("--build-arg", name)]
        return self.shell.time(
            [self.docker, "build", "--network=host", *more, *proxies, "--tag", IMAGE, self.context]
        )

    def measure(self, job: Job) -> Iterator[Sample]:
        if self.mounts:
            job = replace(job, mounts=True)
        yield "cold", self._build(job)
        if self.mounts:
            yield "warm", self._build(job, "--no-cache")
        yield "unchanged", self._build(job)
        for _ in range(RUNS if not self.mounts else 0):
            yield "run", self.shell.time([self.docker, "run", "--rm", "--network=none", IMAGE, "true"])
        yield from _variations(job, self._build, self.context)

    def close(self) -> None:
        if self.daemon is None:
            return
        self.daemon.send_signal(signal.SIGTERM)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        self.daemon = None


class Buildah:
    """Buildah with layers, in a storage of our own; `podman run` for the sandbox row. Needs root."""

    name = "Buildah"

    def version(self) -> str:
        tools = (["buildah", "--version"], ["podman", "--version"])
        said = (subprocess.run(each, check=True, capture_output=True, text=True) for each in tools)
        return ", ".join(done.stdout.strip() for done in said)

    def prepare(self, directory: Path, base: Path) -> None:
        self.context = directory / "context"
        write_context(self.context)
        # Podman refuses a runroot of more than 50 characters.
        self.storage: tuple[str | Path, ...] = (
            "--root",
            directory / "storage",
            "--runroot",
            directory / "r",
        )
        self.shell = Shell(directory / "log", os.environ | {"TMPDIR": os.fspath(directory)})
        # runc also starts where crun 1.8 refuses: hosts with hybrid cgroups.
        runtime = shutil.which("runc", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        self.runtime = ["--runtime", runtime] if runtime else []
        self.shell.time(["podman", *self.storage, "import", base, BASE_IMAGE])

    def _build(self, job: Job) -> Cost:
        (self.context / "Dockerfile").write_text(job.dockerfile(BASE_IMAGE))
        command: list[str | Path] = [
            "buildah",
            *self.storage,
            "bud",
            "--layers",
            "--network=host",
            "--pull=never",
        ]
        return self.shell.time([*command, "--isolation=oci", *self.runtime, "--tag", IMAGE, self.context])

    def measure(self, job: Job) -> Iterator[Sample]:
        yield "cold", self._build(job)
        yield "unchanged", self._build(job)
        # The defaults ask for higher limits than a host may allow.
        run = ["podman", *self.storage, *self.runtime, "run", "--rm", "--network=none"]
        run += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", IMAGE, "true"]
        for _ in range(RUNS):
            yield "run", self.shell.time(run)
        yield from _variations(job, self._build, self.context)

    def close(self) -> None:
        pass


def change_file(directory: Path) -> None:
    """Change the file that the job copies."""
    with (directory / "app.py").open("a") as file:
        file.write("# changed\n")


def _variations(job: Job, build: Callable[[Job], Cost], context: Path) -> Iterator[Sample]:
    """A peer's builds of the job, changed in one place each."""
    yield "pip", build(job.with_pip(MORE_PIP))
    yield "apt", build(job.with_apt(MORE_APT))
    yield "pip-moved", build(job.with_other_pip(*OTHER_PIP))
    change_file(context)
    yield "file", build(job)
    yield "check", build(job.with_other_check())
