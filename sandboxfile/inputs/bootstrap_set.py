"""Which packages a minimal Debian base holds.

The set is that of `mmdebstrap --variant=minbase`: everything essential, everything of priority required,
and apt, with what they need. The host's apt solves it in a directory of its own, exactly as mmdebstrap
has it done, on the verified suites and on nothing of the host's configuration.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandboxfile.errors import HostError, ResolveError
from sandboxfile.inputs import aptsolver
from sandboxfile.inputs.archive import Suite
from sandboxfile.inputs.rows import gone_stanzas, rows_of
from sandboxfile.spec.lock import DebRow, LockedBase


async def solve_base(
    suites: Sequence[Suite],
    *,
    request: str,
    suite: str,
    components: tuple[str, ...],
    architecture: str,
    preferred: Sequence[DebRow] = (),
    stanzas: Mapping[str, str] | None = None,
) -> LockedBase:
    """The locked base for these suites. Its epoch is the newest date of their indexes.

    preferred: locked rows that are to be kept if possible
    stanzas:   their control stanzas by sha256, for those that no suite holds any more
    Raises ResolveError when the packages cannot be installed together, HostError without apt.
    """
    names = sorted({name for each in suites for name in each.index().marked()} | {"apt"})
    kept = tuple(preferred)
    try:
        solution = await asyncio.to_thread(_solve, suites, names, architecture, kept, stanzas or {})
    except ResolveError:
        if not kept:
            raise
        # What was locked does not go with what has to move; apt may choose freely.
        solution = await asyncio.to_thread(_solve, suites, names, architecture, (), {})
    return LockedBase(
        request=request,
        kind="debian",
        architecture=architecture,
        epoch=max(each.archive.date for each in suites),
        suite=suite,
        components=components,
        archives=tuple(each.archive for each in suites),
        packages=rows_of(
            solution.install,
            suites,
            auto=frozenset(),
            because={},
            known={(row.name, row.version, row.arch): row for row in kept},
        ),
    )


def _solve(
    suites: Sequence[Suite],
    names: Sequence[str],
    architecture: str,
    preferred: Sequence[DebRow],
    stanzas: Mapping[str, str],
) -> aptsolver.Solution:
    with tempfile.TemporaryDirectory(prefix="sandboxfile-apt-") as scratch:
        root = Path(scratch)
        for each in ("etc", "lists/lists/partial", "lists/cache/archives/partial", "keys", "var/lib/dpkg"):
            (root / each).mkdir(parents=True)
        lines = []
        for number, suite in enumerate(suites):
            key = root / "keys" / f"{number}.gpg"
            key.write_bytes(suite.request.keyring.content)
            lines.append(aptsolver.source_line(suite, str(suite.root.resolve()), signed_by=str(key)))
        if gone := gone_stanzas(preferred, suites, stanzas):
            (root / "locked").mkdir()
            (root / "locked/Packages").write_text(gone)
            lines.append(f"deb [trusted=yes] file:{root / 'locked'} ./\n")
        (root / "etc/sources.list").write_text("".join(lines))
        pins = aptsolver.pins([(row.name, row.version) for row in preferred], aptsolver.LOCKED_PRIORITY)
        (root / "preferences").write_text(pins)
        for name in ("status", "extended_states"):
            (root / name).write_text("")
        configuration = aptsolver.Configuration(
            architecture=architecture,
            sources=str(root / "etc/sources.list"),
            state=str(root),
            lists=str(root / "lists"),
            preferences=str(root / "preferences"),
            root=str(root),
        )
        (root / "apt.conf").write_text(configuration.text())
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "APT_CONFIG": str(root / "apt.conf"),
            "TMPDIR": scratch,
        }
        _run(aptsolver.UPDATE, env)
        return aptsolver.parse(_run((*aptsolver.SIMULATE, *names), env))


def _run(argv: Sequence[str], env: dict[str, str]) -> str:
    try:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HostError("apt-get is missing, which solves a Debian base", hint="use a Debian host") from None
    if done.returncode != 0:
        raise ResolveError(
            "apt found no minimal base in these suites",
            details=aptsolver.explanation(done.stdout + done.stderr),
            hint="the archive may be in the middle of an update: try again with --refresh",
        )
    return done.stdout
