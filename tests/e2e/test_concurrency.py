"""Two builds at once share the work; a killed build costs nothing but its own work."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]

Based = Callable[[str], Program]


def mounts_below(home: Path) -> list[str]:
    """Mounts of any process of this machine that name the store."""
    found = []
    for info in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            found += [line for line in info.read_text().splitlines() if str(home) in line]
        except OSError:
            continue
    return found


def processes_naming(text: str) -> list[str]:
    """Command lines of other processes in which a text occurs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if text in line and int(entry.parent.name) != os.getpid():
            found.append(line)
    return found


def test_two_builds_of_one_file_at_once_share_the_work(based: Based) -> None:
    program = based(
        f"apt: [jq]\nrun:\n  - 'date +%s.%N > /etc/when; : {uuid4()}'\nverify:\n  - jq --version\n"
    )
    both = [program.start("build", "--progress=json") for _ in range(2)]
    done = [process.communicate() for process in both]
    assert [p.returncode for p in both] == [0, 0], done
    assert done[0][0] == done[1][0]
    finished = [
        event["outcome"]
        for _, stderr in done
        for event in (json.loads(line) for line in stderr.splitlines() if line.startswith("{"))
        if event["event"] == "task-finished" and event["task"] == "layer:run-1"
    ]
    # Who came second either waited for the layer, or found it when it planned.
    assert finished.count("done") == 1
    assert set(finished) <= {"done", "reused"}


@pytest.mark.timeout(900)
def test_a_build_killed_at_random_moments_leaves_nothing_behind(
    based: Based, shared_home: Path, tmp_path: Path
) -> None:
    program = based(
        "apt: [jq, bc]\npip: []\nrun:\n  - seq 200000 > /srv/seq\n  - sha256sum /srv/seq > /srv/sum\n"
        "verify:\n  - jq --version\n  - sleep 0.2\n  - test -s /srv/sum\n"
    )
    seed = random.SystemRandom().randrange(1 << 32)
    dice = random.Random(seed)
    text = (program.directory / "Sandboxfile").read_text()
    for _ in range(20):
        # Another step each time, so that every build has work to be killed in.
        program.write(text.replace("seq 200000", f"seq {dice.randrange(100_000, 10_000_000)}"))
        process = program.start("build", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=dice.uniform(0.05, 4.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    ran = program("build")
    assert ran.last.startswith("test-"), f"seed {seed}"
    program("cache", "gc")
    assert mounts_below(shared_home) == [], f"seed {seed}"
    assert processes_naming(str(shared_home)) == [], f"seed {seed}"
    assert list((shared_home / "workspaces").iterdir()) == []
    assert program("build").last == ran.last
