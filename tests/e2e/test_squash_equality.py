"""Building by increments and building from the squashed lock lead to the same environment.

Real packages, installed by the real dpkg in both orders. Packages, versions, marks and the results of checks
are the same. MAY_DIFFER is the whole list of what else may not be.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.lock_world import World

# A dozen locks and builds: on a busy machine they take longer than any other test.
pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.timeout(3600)]

MAY_DIFFER = {
    "the next free number, in the order of installation": (
        "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/subuid", "etc/subgid",
    ),
    "of alternatives with the same priority the first stays": (
        "etc/alternatives/*", "var/lib/dpkg/alternatives/*",
    ),
    "dpkg's bookkeeping, in the order of installation": (
        "var/lib/dpkg/status", "var/lib/dpkg/triggers/*", "var/lib/dpkg/statoverride",
        "var/lib/systemd/deb-systemd-helper*", "var/cache/debconf/*",
    ),
}  # fmt: skip
LEFT_BEHIND = ("etc/*", "var/*", "usr/share/info/*")
"""Where scripts of a package that came and went leave configuration, queues and lists."""
TAKEN_OVER = ("etc/aliases", "etc/aliases.db")
"""What they wrote and another package, which would have written its own, found there and kept."""


@dataclass(frozen=True)
class Step:
    """What one commit adds to a Sandboxfile."""

    apt: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    check: str = "true"


STEPS = (
    Step(("libonig5",)),
    Step(("jq",), check="jq --version"),
    Step(("ed",), check="ed --version"),
    Step(("nano",), check="editor --version"),
    Step(("uuid-runtime",), check="getent passwd uuidd | cut -d: -f1"),
    Step(("cron",), check="stat -c %G /var/spool/cron/crontabs"),
    Step(("zlib1g-dev",), check="test -f /usr/include/zlib.h"),
    Step(("python3",), ("idna",), check="python3 -c 'import idna'"),
)
REPLACED = (Step(("bsd-mailx",)), Step(("postfix",), check="test -x /usr/sbin/postfix"))
NUMBERS = count(1)


def sandboxfile(steps: tuple[Step, ...]) -> str:
    document = {
        "apt": [name for step in steps for name in step.apt],
        "pip": [name for step in steps for name in step.pip],
        "verify": [step.check for step in steps],
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items() if value)


LIST = r"""
cd /
find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp \) -prune \
    -o -printf '%P\t%y %m %u:%g %l\n' | sort
echo ---
find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp \) -prune \
    -o -type f -printf '%P\0' | xargs -0 sha256sum
"""


@dataclass(frozen=True)
class State:
    """What an environment holds, as it sees itself."""

    packages: dict[str, str]
    marks: frozenset[str]
    answers: tuple[str, ...]
    files: dict[str, str]


def state(world: World, slug: str, steps: tuple[Step, ...]) -> State:
    def run(*argv: str) -> str:
        return world.program("run", slug, "--", *argv).stdout

    listed, _, sums = run("sh", "-c", LIST).partition("---\n")
    files = dict(line.split("\t", 1) for line in listed.splitlines())
    for line in sums.splitlines():
        digest, name = line.split("  ", 1)
        files[name] += f" {digest}"
    return State(
        packages=world.installed(slug),
        marks=frozenset(run("apt-mark", "showauto").split()),
        answers=tuple(run("sh", "-c", f"{step.check} 2>&1") for step in steps),
        files=files,
    )


def reason(path: str, removed: bool, at_once: bool) -> str | None:
    """Why a file may differ, None when it may not.

    removed: a group removed a package that an earlier one had brought
    at_once: the squashed lock brings the file too
    """
    for why, patterns in MAY_DIFFER.items():
        if any(fnmatch.fnmatch(path.removesuffix("-"), pattern) for pattern in patterns):
            return why
    if removed and any(fnmatch.fnmatch(path, each) for each in (TAKEN_OVER if at_once else LEFT_BEHIND)):
        return "written by scripts of a package that was removed"
    return None


@settings(
    max_examples=1,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.sampled_from(STEPS), min_size=3, max_size=4, unique=True).map(tuple))
@example((STEPS[0], STEPS[6], STEPS[4], STEPS[1], STEPS[3], STEPS[2]))
@example(REPLACED)
def test_increments_and_a_squashed_lock_make_the_same_environment(
    world: World, steps: tuple[Step, ...]
) -> None:
    # A name for each example, so that nothing is known of it before.
    world.name = f"squash-{next(NUMBERS)}"
    world.archive.suites["trixie-security"]["zlib1g"] = world.archive.index.texts("zlib1g")[-1]
    world.archive.publish()
    program = world.start(sandboxfile(steps[:1]))
    for number in range(2, len(steps) + 1):
        world.relock(sandboxfile(steps[:number]))
    by_increments = program("build").last
    grown = state(world, by_increments, steps)
    removed = any(group.apt and group.apt.removed for group in world.lock().groups)

    program("lock", "--squash")
    at_once = program("build", "--locked").last
    squashed = state(world, at_once, steps)

    assert at_once != by_increments
    assert squashed.packages == grown.packages
    assert squashed.marks == grown.marks
    assert squashed.answers == grown.answers
    differing = {
        path
        for path in grown.files.keys() | squashed.files.keys()
        if grown.files.get(path) != squashed.files.get(path)
    }
    unexplained = {
        path: (grown.files.get(path), squashed.files.get(path))
        for path in differing
        if reason(path, removed, path in squashed.files) is None
    }
    assert unexplained == {}
