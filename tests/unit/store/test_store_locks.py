from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxfile.errors import StoreError
from sandboxfile.store.locks import Locks, is_owned, own_new
from sandboxfile.store.store import Store

HOLDER = """
import sys
from pathlib import Path
from sandboxfile.store.locks import Locks
with Locks(Path(sys.argv[1])).lock(sys.argv[2], shared=sys.argv[3] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(locks: Locks, name: str, mode: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock until the block ends or its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(locks.directory), name, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def test_a_free_lock_is_gained_at_once(store: Store) -> None:
    with store.locks.lock("a", wait=lambda pid: pytest.fail("waited")), store.locks.lock("b"):
        pass


def test_whoever_waits_is_told_for_whom_and_gains_it_afterwards(store: Store) -> None:
    with held_elsewhere(store.locks, "a") as process:
        told: list[int | None] = []

        def wait(pid: int | None) -> None:
            told.append(pid)
            let_go(process)

        with store.locks.lock("a", wait=wait):
            assert told == [process.pid]


def test_a_killed_holder_leaves_the_lock_free(store: Store) -> None:
    with held_elsewhere(store.locks, "a") as process, store.locks.lock("a", wait=lambda pid: process.kill()):
        pass


def test_sharers_do_not_wait_for_each_other(store: Store) -> None:
    with (
        held_elsewhere(store.locks, "a", "shared") as process,
        store.locks.lock("a", shared=True, wait=lambda pid: pytest.fail("waited")),
    ):
        let_go(process)


def test_the_event_loop_goes_on_while_a_lock_is_waited_for(store: Store) -> None:
    async def work(process: subprocess.Popen[str]) -> None:
        told: list[int | None] = []
        async with asyncio.TaskGroup() as group:

            async def build() -> None:
                async with store.locks.exclusive("a", on_wait=told.append):
                    assert told == [process.pid]

            waiting = group.create_task(build())
            while not told:
                await asyncio.sleep(0)
            assert not waiting.done()
            let_go(process)

    with held_elsewhere(store.locks, "a") as process:
        asyncio.run(work(process))


def test_tasks_of_one_process_exclude_each_other(store: Store) -> None:
    inside = 0

    async def build() -> None:
        nonlocal inside
        async with store.locks.exclusive("a"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    async def work() -> None:
        await asyncio.gather(*(build() for _ in range(8)))

    asyncio.run(work())


def test_shared_tasks_are_inside_together(store: Store) -> None:
    async def work() -> None:
        async with store.locks.shared("a"), store.locks.shared("a"):
            pass

    asyncio.run(work())


def test_a_cancelled_wait_leaves_no_lock_behind(store: Store) -> None:
    async def work(process: subprocess.Popen[str]) -> None:
        async def build() -> None:
            async with store.locks.exclusive("a"):
                pytest.fail("gained")

        waiting = asyncio.create_task(build())
        while not any(thread.name == "lock" for thread in threading.enumerate()):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        let_go(process)
        async with asyncio.timeout(60), store.locks.exclusive("a"):
            pass

    with held_elsewhere(store.locks, "a") as process:
        asyncio.run(work(process))
        for thread in threading.enumerate():
            if thread.name == "lock":
                thread.join(60)
        with store.locks.lock("a", wait=lambda pid: pytest.fail("leaked")):
            pass


def test_a_wait_cancelled_just_after_it_was_granted_leaves_no_lock_behind(store: Store) -> None:
    async def work(process: subprocess.Popen[str]) -> None:
        entered = False

        async def build() -> None:
            nonlocal entered
            async with store.locks.exclusive("a"):
                entered = True

        waiting = asyncio.create_task(build())
        while not (threads := [t for t in threading.enumerate() if t.name == "lock"]):
            await asyncio.sleep(0)
        let_go(process)
        threads[0].join(60)  # granted, but the task has not run again yet
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not entered

    with held_elsewhere(store.locks, "a") as process:
        asyncio.run(work(process))
        with store.locks.lock("a", wait=lambda pid: pytest.fail("leaked")):
            pass


def test_a_process_that_waits_can_end(store: Store) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from sandboxfile.store.locks import Locks
async def main():
    async with asyncio.timeout(0.01):
        async with Locks(Path(sys.argv[1])).exclusive("a"): pass
try: asyncio.run(main())
except TimeoutError: print("ended")
"""
    with held_elsewhere(store.locks, "a"):
        done = subprocess.run(
            [sys.executable, "-c", code, store.locks.directory], stdout=subprocess.PIPE, text=True, check=True
        )
    assert done.stdout == "ended\n"


def test_any_text_is_a_name(store: Store) -> None:
    for name in ("../../evil", "a" * 500, "", ".", "uses/x", "naïve"):
        with store.locks.lock(name):
            assert store.locks.path(name).parent == store.locks.directory


def test_only_files_of_unheld_locks_are_removed(store: Store) -> None:
    with store.locks.lock("held"):
        with store.locks.lock("free"):
            pass
        assert store.locks.remove_unheld() == 1
        assert sorted(os.listdir(store.locks.directory)) == ["held", "uses"]


def test_a_lock_whose_file_was_unlinked_while_waited_for_is_taken_anew(store: Store) -> None:
    with held_elsewhere(store.locks, "a") as process:

        def wait(pid: int | None) -> None:
            store.locks.path("a").unlink()
            let_go(process)

        with store.locks.lock("a", wait=wait):
            assert store.locks.path("a").exists()


def test_a_lock_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="locking `a`"), Locks(tmp_path / "nowhere").lock("a"):
        pass


def test_a_workspace_is_owned_as_long_as_its_client_lives(tmp_path: Path) -> None:
    assert is_owned(tmp_path) is None
    owner = own_new(tmp_path / "w-1")
    assert is_owned(tmp_path / "w-1") is True
    owner.release()
    owner.release()
    assert is_owned(tmp_path / "w-1") is False
