"""Before and after a loss of power, in the virtual machine: `crash.py leave STORE`, `crash.py after STORE`.

`leave` starts sandboxes of every kind and says `ready`; nobody ends it. `after`, in the next boot, prints one
line for each promise, and `broken: ` before those that were not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from sandboxfile import AsyncClient
from sandboxfile.engines.linux.cgroups import freezer, hierarchies

CAPACITY = 64 << 20
NUMBERS = "\n".join(map(str, range(1, 300_001))) + "\n"
PROJECT = """\
name: late
base: snapshot:base
run:
  - mkdir /opt/many; cd /opt/many; for n in $(seq 1 200); do echo "content $n" > "file$n"; done
  - seq 1 300000 > /opt/numbers
"""
SYNCED = "echo synced > /opt/synced; sync /opt/synced /opt"


async def leave(home: Path) -> None:
    """Everything that can be going on, and then nothing more."""
    client = AsyncClient(home=home)
    await make_base(client)
    capacity = CAPACITY if os.geteuid() == 0 else None
    await client.volumes.create("used", capacity, from_="base")
    await client.volumes.create("frozen", capacity, from_="base")
    await client.volumes.create("data")
    async with await client.sandboxes.create("frozen") as sandbox:
        await sandbox.sh(SYNCED)
    await client.volumes.snapshot("frozen", "from-volume")
    used = await client.sandboxes.create("used", memory="256MB", pids=50, volumes={"/srv/data": "data"})
    await used.sh(SYNCED)
    await used.sh("echo synced > /srv/data/file; sync /srv/data/file /srv/data")
    thrown = await client.sandboxes.create("base", memory="256MB", cpus=0.5, disk="16MB")
    await thrown.sh("echo synced > /opt/synced")
    await thrown.snapshot("from-running")
    await thrown.spawn("sleep", "100000")
    await used.sh("head -c 20000000 /dev/urandom > /opt/not-synced")
    workspace = await client.engine.prepare(client.snapshot("base").layers)
    assert workspace is not None
    print("sandboxes are running", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "Sandboxfile").write_text(PROJECT)
        argv = [sys.executable, "-m", "sandboxfile", "--home", str(home), "-C", directory, "build", "-q"]
        subprocess.run(argv, check=True)
        print("built", flush=True)
        print("ready", flush=True)
        await asyncio.sleep(100_000)


async def make_base(client: AsyncClient) -> None:
    """The snapshot `base`, of the tar that came with this."""
    archive = Path(__file__).parents[2] / "base.tar"
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with tempfile.TemporaryDirectory() as directory:
        shutil.copyfile(archive, Path(directory) / archive.name)
        text = f"name: base\nbase: {{rootfs: {archive.name}, sha256: {digest}}}\n"
        (Path(directory) / "Sandboxfile").write_text(text)
        await client.build(client.load(directory=Path(directory)))


class Promises:
    """What is looked at after the boot."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.client = AsyncClient(home=home)
        self.broken = 0

    async def keep(self, name: str, trial: Callable[[], Awaitable[None]]) -> None:
        """Try one; the others are tried all the same."""
        try:
            await trial()
            print(f"kept: {name}", flush=True)
        except Exception:
            self.broken += 1
            print(f"broken: {name}", flush=True)
            traceback.print_exc(file=sys.stdout)

    def entries(self, name: str) -> list[str]:
        """What is in a directory of the store."""
        return sorted(os.listdir(self.home / name))

    async def before_anything(self) -> None:
        assert self.entries("workspaces"), "nothing was left, so nothing is tried here"
        assert self.entries("sandboxes"), "nothing was left, so nothing is tried here"
        with Path("/proc/self/mountinfo").open() as table:
            assert str(self.home) not in table.read()
        assert groups() == []
        assert processes() == []

    async def the_next_call(self) -> None:
        assert await self.client.sandboxes.list() == ()
        assert self.entries("sandboxes") == []
        assert [volume.sandbox for volume in await self.client.volumes.list()] == [None] * 3

    async def collected(self) -> None:
        await self.client.gc(keep_days=0)
        for name in ("workspaces", "trash", "staging", "sandboxes"):
            assert self.entries(name) == [], (name, self.entries(name))
        assert self.client.store.locks.held() <= 1
        assert groups() == []

    async def index(self) -> None:
        paths = list(self.home.glob("index*.sqlite"))
        assert len(paths) == 1, paths
        for path in paths:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert self.client.store.notices == ()

    async def volume(self) -> None:
        async with await self.client.sandboxes.create("used", volumes={"/srv/data": "data"}) as sandbox:
            assert (await sandbox.sh("cat /opt/synced /srv/data/file")).text == "synced\nsynced\n"
            await sandbox.sh("rm -f /opt/not-synced; echo again > /opt/again; sync /opt/again")
        async with await self.client.sandboxes.create("used") as sandbox:
            assert (await sandbox.sh("cat /opt/again")).text == "again\n"

    async def from_volume(self) -> None:
        async with await self.client.sandboxes.create("from-volume") as sandbox:
            assert (await sandbox.sh("cat /opt/synced")).text == "synced\n"
        async with await self.client.sandboxes.create("frozen") as sandbox:
            assert (await sandbox.sh("cat /opt/synced")).text == "synced\n"

    async def from_running(self) -> None:
        async with await self.client.sandboxes.create("from-running") as sandbox:
            assert (await sandbox.sh("cat /opt/synced")).text == "synced\n"

    async def built(self) -> None:
        numbers = hashlib.sha256(NUMBERS.encode()).hexdigest()
        async with await self.client.sandboxes.create("late") as sandbox:
            assert (await sandbox.sh("sha256sum < /opt/numbers")).text.split()[0] == numbers
            many = (await sandbox.sh("cd /opt/many; cat $(ls | sort -V)")).text
            assert many == "".join(f"content {number}\n" for number in range(1, 201))

    async def all_gone(self) -> None:
        await self.client.close()
        assert groups() == []
        assert processes() == []


def groups() -> list[str]:
    """The control groups of sandboxes."""
    tops = {*hierarchies().values(), *filter(None, [freezer()])}
    return sorted(str(path) for top in tops for path in Path(top).glob("sandboxfile/*/"))


def processes() -> list[str]:
    """The helpers and sandboxes' inits that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text().strip()
        except OSError:
            continue
        if name in ("sandboxfile", "catatonit", "crun", "pasta"):
            found.append(f"{path.parent.name} {name}")
    return found


async def after(home: Path) -> None:
    """Look at everything."""
    promises = Promises(home)
    for name, trial in (
        ("the boot left no mounts, processes or control groups", promises.before_anything),
        ("the index is whole", promises.index),
        ("the next call knows of no sandbox", promises.the_next_call),
        ("gc leaves no workspaces and no locks", promises.collected),
        ("a volume that was in use can be used, and holds what was synced", promises.volume),
        ("a snapshot of a volume boots", promises.from_volume),
        ("a snapshot of a running sandbox boots", promises.from_running),
        ("what was built a moment before is whole", promises.built),
        ("nothing is left now", promises.all_gone),
    ):
        await promises.keep(name, trial)
    print(f"{promises.broken} broken", flush=True)


if __name__ == "__main__":
    asyncio.run({"leave": leave, "after": after}[sys.argv[1]](Path(sys.argv[2])))
