"""What makes a start fast: few messages, namespaces made ahead, a sealed runtime, a helper started early.
None of it is measured by a clock; benchmarks/boot.py does that."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench, Place

from sandboxfile.engine.base import Command
from sandboxfile.engines.linux import helper_start
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.sealed import SealedPrograms

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def descendants(pid: int) -> list[int]:
    """Every process below one, itself not included."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def test_a_program_starts_from_a_copy_that_nobody_can_write() -> None:
    path = SealedPrograms().path(os.path.realpath("/usr/bin/readlink"))
    descriptor = int(path.rpartition("/")[2])
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == SEALS
    argv = ["readlink", "/proc/self/exe"]
    done = subprocess.run(
        argv, executable=path, pass_fds=[descriptor], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.startswith("/memfd:")
    with pytest.raises(PermissionError), open(path, "r+b", buffering=0) as file:
        file.write(b"#!")
    os.close(descriptor)


def test_a_program_is_copied_once(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"x" * 100_000)
    programs = SealedPrograms()
    path = programs.path(str(program))
    assert Path(path).read_bytes() == program.read_bytes()
    assert programs.path(str(program)) == path
    os.close(int(path.rpartition("/")[2]))


@pytest.mark.host
def test_the_runtime_that_a_sandbox_could_reach_is_sealed(bench: Bench) -> None:
    """The way of CVE-2019-5736: whoever gets hold of the runtime's own file may not write to it."""
    if not bench.engine.runtime.sealable:
        pytest.skip("only crun is started from a sealed copy")

    async def body() -> None:
        sandbox = await bench.engine.start(bench.base)
        started = asyncio.Event()
        waits = Command(("sh", "-c", "echo up; exec sleep 1000"), {"PATH": "/usr/bin:/bin"})
        running = asyncio.ensure_future(sandbox.execute(waits, lambda *_: started.set()))
        await started.wait()
        helper = bench.engine.helper._process
        assert helper is not None
        seals = []
        for pid in descendants(helper.pid):
            with open(f"/proc/{pid}/exe", "rb") as file:
                # What was opened is asked: a process may become another program at any moment.
                if os.readlink(f"/proc/self/fd/{file.fileno()}").startswith("/memfd:crun"):
                    seals.append(fcntl.fcntl(file, fcntl.F_GET_SEALS))
        assert seals
        assert set(seals) == {SEALS}
        await sandbox.close()
        await running

    bench.trial(body)


@pytest.mark.host
def test_a_sandbox_and_its_first_command_take_few_messages(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = HelperClient.ask

    async def counted(self: HelperClient, *operations: Any, **options: Any) -> Any:
        asked.append(" ".join(operation.op for operation in operations))
        return await ask(self, *operations, **options)

    monkeypatch.setattr(HelperClient, "ask", counted)

    async def body() -> tuple[int, int, int]:
        warm = await bench.engine.start(bench.base)
        await warm.close()
        counts = []
        asked.clear()
        sandbox = await bench.engine.start(bench.base)
        counts.append(len(asked))
        await Place(sandbox).run("true")
        counts.append(len(asked))
        await sandbox.close()
        return counts[0], counts[1] - counts[0], len(asked) - counts[1]

    boot, command, close = bench.trial(body)
    assert (boot, command, close) <= (1, 3, 2), asked
    assert boot == 1
    assert command <= 3
    assert close <= 2


@pytest.mark.host
def test_every_sandbox_has_namespaces_of_its_own(bench: Bench) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

    async def body() -> None:
        sandboxes = await asyncio.gather(*(bench.engine.start(bench.base) for _ in range(6)))
        script = "readlink " + " ".join(f"/proc/self/ns/{kind}" for kind in kinds)
        said = [(await Place(sandbox).sh(script)).stdout.split() for sandbox in sandboxes]
        everybody = [name for names in said for name in names]
        assert len(set(everybody)) == len(everybody) == len(kinds) * len(sandboxes)
        assert not {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds} & set(everybody)

    bench.trial(body)


@pytest.mark.host
def test_namespaces_made_ahead_go_with_the_helper(bench: Bench) -> None:
    async def body() -> list[int]:
        await (await bench.engine.start(bench.base)).close()
        process = bench.engine.helper._process
        assert process is not None
        watched = [os.pidfd_open(pid) for pid in descendants(process.pid)]
        await bench.engine.close()
        return watched

    watched = bench.trial(body)
    assert len(watched) > 1  # process 1, and who holds namespaces
    for descriptor in watched:
        assert select.select([descriptor], [], [], 0)[0], "it still runs"
        os.close(descriptor)


@pytest.mark.host
def test_a_holder_of_namespaces_that_dies_is_replaced(bench: Bench) -> None:
    async def body() -> None:
        await (await bench.engine.start(bench.base)).close()
        process = bench.engine.helper._process
        assert process is not None
        (first,) = [
            int(child)
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        for pid in descendants(first):
            os.kill(pid, signal.SIGKILL)
        sandboxes = [await bench.engine.start(bench.base) for _ in range(4)]
        codes = [(await Place(sandbox).run("true")).completed.exit_code for sandbox in sandboxes]
        assert codes == [0, 0, 0, 0]

    bench.trial(body)


def keys_of(uid: int) -> int:
    """How many keys of the kernel's a user has."""
    for line in Path("/proc/key-users").read_text().splitlines():
        user, rest = line.split(":")
        if int(user) == uid:
            return int(rest.split()[1].split("/")[0])
    return 0


@pytest.mark.host
@pytest.mark.skipif(not os.path.exists("/proc/key-users"), reason="the kernel has no keys")
def test_sandboxes_take_none_of_the_keys_a_user_may_have(bench: Bench) -> None:
    """An ordinary user may have 200. Others on the host make and drop some meanwhile, so not none but few."""
    count = 25

    async def body() -> int:
        await bench.engine.helper.start()
        before = keys_of(os.getuid())
        await asyncio.gather(*(bench.engine.start(bench.base) for _ in range(count)))
        return keys_of(os.getuid()) - before

    assert bench.trial(body) < count - 5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LinuxEngine]:
    engine = LinuxEngine(tmp_path / "home")
    yield engine
    for _, launched in helper_start._ahead.values():
        launched.discard()
    helper_start._ahead.clear()


@pytest.mark.host
def test_a_helper_that_was_started_ahead_is_taken(store: LinuxEngine) -> None:
    home = str(store.layers.home)
    assert store.ids.mode in ("root", "user")
    helper_start.launch_ahead(home)
    helper_start.launch_ahead(home)  # a second call changes nothing
    pid = helper_start._ahead[home][1].process.pid

    async def body() -> int:
        await store.helper.start()
        assert store.helper._process is not None
        try:
            return store.helper._process.pid
        finally:
            await store.close()

    assert asyncio.run(body()) == pid
    assert helper_start._ahead == {}


@pytest.mark.host
def test_a_helper_that_died_meanwhile_is_replaced(store: LinuxEngine) -> None:
    home = str(store.layers.home)
    assert store.ids
    helper_start.launch_ahead(home)
    dead = helper_start._ahead[home][1].process
    dead.kill()
    dead.wait()

    async def body() -> None:
        await store.helper.start()
        assert store.helper._process is not dead
        await store.close()

    asyncio.run(body())


def test_no_helper_is_started_ahead_for_a_store_that_was_never_used(tmp_path: Path) -> None:
    helper_start.launch_ahead(str(tmp_path))
    (tmp_path / "idmap.json").write_text("nonsense")
    helper_start.launch_ahead(str(tmp_path))
    (tmp_path / "idmap.json").write_text(
        json.dumps({"mode": "root" if os.geteuid() else "user", "uid": 1, "gid": 1})
    )
    helper_start.launch_ahead(str(tmp_path))
    assert helper_start._ahead == {}


def test_starting_a_helper_imports_no_event_loop() -> None:
    script = "import sys, sandboxfile.engines.linux.helper_start; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
