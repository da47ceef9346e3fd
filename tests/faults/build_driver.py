"""Builds a project with the linux engine, and fails or dies at a named point.

    python build_driver.py HOME DIRECTORY POINT ACTION

ACTION is `raise` (an OSError: the disk is full), `kill` (SIGKILL to itself) or `none`. Prints the slug, or
the class and the message of the error.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path

from sandboxfile.api import AsyncClient
from sandboxfile.store import faults

TINY = """\
name: tiny
base: scratch
files:
  - {{from: bin, to: /bin}}
  - {{content: "{text}", to: /text}}
run:
  - cat /text /bin/owner > /made
verify:
  - {{run: cat /made, stdout: "{text}"}}
"""
"""A few kilobytes beside one static program, with each kind of layer that needs no network."""


BUSYBOX = "/bin/busybox"
"""Statically linked; `scripts/setup --tests` installs it."""


def make_project(directory: Path, text: str) -> None:
    """Write the tiny project, whose layers depend on a text."""
    programs = directory / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    (programs / "owner").write_text("root\n")
    if not (programs / "busybox").exists():
        (programs / "busybox").write_bytes(Path(BUSYBOX).read_bytes())
        (programs / "busybox").chmod(0o755)
        for name in ("sh", "cat"):
            (programs / name).symlink_to("busybox")
    (directory / "Sandboxfile").write_text(TINY.format(text=text))


async def build(home: Path, directory: Path) -> str:
    """Build a project; the slug."""
    async with AsyncClient(home=home) as client:
        return (await client.build(client.load(directory=directory))).slug


async def empty_store(home: Path) -> None:
    """Delete everything in a store, which holds files of ids that are nobody's."""
    async with AsyncClient(home=home) as client:
        for info in client.stored_snapshots():
            await client.remove_snapshot(info.slug)
        await client.gc(keep_days=0)


def main(home: str, directory: str, at: str, action: str) -> None:
    def fault(name: str) -> None:
        if name != at:
            return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "raise":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "made to fail")

    faults.install(fault)
    try:
        print(asyncio.run(build(Path(home), Path(directory))))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
