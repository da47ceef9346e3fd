"""What boot.py compares with: `docker run`, `podman run`, a bare `crun run` of the same base. Need root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import BASE_IMAGE, Buildah, BuildKit

Samples = list[float]
_CRUN = """
import json, subprocess, sys, time
samples = []
for number in range(int(sys.argv[2])):
    begin = time.perf_counter()
    subprocess.run(["crun", "--cgroup-manager=disabled", "run", "--bundle", sys.argv[1], f"bench-{number}"],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    samples.append(time.perf_counter() - begin)
print(json.dumps(samples))
"""


@contextmanager
def docker(directory: Path, base: Path) -> Iterator[list[str | Path]]:
    """A command line of `docker run … true`, in a daemon of its own."""
    tool = BuildKit()
    directory.mkdir()
    try:
        tool.prepare(directory, base)
        host = tool.shell.environment["DOCKER_HOST"]
        yield [tool.docker, "--host", host, "run", "--rm", "--network=none", BASE_IMAGE, "true"]
    finally:
        tool.close()


@contextmanager
def podman(directory: Path, base: Path) -> Iterator[list[str | Path]]:
    """A command line of `podman run … true`, with a storage of its own."""
    tool = Buildah()
    directory.mkdir()
    tool.prepare(directory, base)
    run: list[str | Path] = ["podman", *tool.storage, *tool.runtime, "run", "--rm", "--network=none"]
    yield [*run, "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", BASE_IMAGE, "true"]


def crun(directory: Path, base: Path, rounds: int) -> Samples:
    """Seconds of `crun run` with the configuration of `crun spec`: no user namespace, no seccomp, no limits.

    crun 1.8 refuses hosts with control groups v1 and v2 side by side, so it runs where it sees v2 alone.
    """
    root = directory / "rootfs"
    root.mkdir(parents=True)
    with tarfile.open(base) as archive:
        archive.extractall(root, filter="fully_trusted")
    subprocess.run(["crun", "spec"], cwd=directory, check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"args": ["true"], "terminal": False, "rlimits": []}
    (directory / "config.json").write_text(json.dumps(config))
    script = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    inside = ["unshare", "--mount", "--cgroup", "sh", "-c", script, "sh"]
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        inside = []
    done = subprocess.run(
        [*inside, sys.executable, "-c", _CRUN, directory, str(rounds)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    samples: Samples = json.loads(done.stdout)
    return samples


def timed(argv: list[str | Path], rounds: int) -> Samples:
    """Seconds of each of several runs of a command."""
    samples = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        samples.append(time.perf_counter() - begin)
    return samples


def missing(name: str) -> bool:
    """Whether a peer is not installed."""
    return shutil.which(name) is None
