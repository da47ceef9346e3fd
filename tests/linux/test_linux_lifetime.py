"""Nothing outlives its owner: clients that are killed, layers that are removed, helpers that die."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench, Place

from sandboxfile.core.layer import FilesLayer, LayerKey, TreeEntry, layer_key
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.engines.linux.layers import Owned, is_abandoned
from sandboxfile.engines.linux.operations import MakeDirectory, ReadText, WriteFile
from sandboxfile.errors import EngineError

pytestmark = pytest.mark.host

CLIENT = """
import asyncio, sys
from pathlib import Path
from sandboxfile.engine.base import Command
from sandboxfile.engines.linux.engine import LinuxEngine

async def main():
    engine = LinuxEngine(Path(sys.argv[1]))
    sandbox = await engine.start(sys.argv[2:])
    workspace = await engine.prepare(sys.argv[2:])
    env = {"PATH": "/usr/bin:/bin"}
    def say(stream, data):
        print(engine.helper._process.pid, workspace.id, flush=True)
    await asyncio.gather(
        sandbox.execute(Command(("sh", "-c", "echo up; sleep 1000"), env), say),
        workspace.execute(Command(("sh", "-c", "sleep 1000"), env), say),
    )

asyncio.run(main())
"""


def test_a_killed_client_leaves_no_process_and_its_workspace_is_swept(bench: Bench) -> None:
    home = bench.engine.layers.home
    argv = [sys.executable, "-c", CLIENT, str(home), *bench.base]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        helper, workspace = client.stdout.readline().split()
        watched = os.pidfd_open(int(helper))
        client.send_signal(signal.SIGKILL)
    # The helper's parent waits for process 1 of its namespace, and so for everything in it.
    assert select.select([watched], [], [], 30)[0]
    os.close(watched)
    left = home / "workspaces" / workspace
    assert is_abandoned(left)

    bench.trial(bench.engine.sweep)
    assert not left.exists()
    assert list((home / "trash").iterdir()) == []


def test_a_living_clients_workspace_is_not_swept(empty_engine: LinuxEngine) -> None:
    async def body() -> None:
        try:
            workspace = await empty_engine.prepare(())
            await empty_engine.sweep()
            await workspace.remove("/nothing")
        finally:
            await empty_engine.close()

    asyncio.run(body())


def test_an_owner_can_be_told_alive_from_dead(tmp_path: Path) -> None:
    owned = Owned(tmp_path)
    assert not is_abandoned(owned.path)
    owned.release()
    assert is_abandoned(owned.path)


async def detached(engine: LinuxEngine, name: str, tmp_path: Path) -> LayerKey:
    origin = tmp_path / name
    origin.write_text(name)
    definition = FilesLayer((TreeEntry(f"/bin/{name}", "file", 0o755, origin=str(origin)),), 0)
    workspace = await engine.prepare(())
    await workspace.place(definition.entries)
    await workspace.commit(definition, layer_key(definition))
    return layer_key(definition)


def test_removed_layers_go_when_the_last_sandbox_on_them_ends(bench: Bench, tmp_path: Path) -> None:
    engine = bench.engine

    async def body() -> None:
        key = await detached(engine, "to-go", tmp_path)
        sandbox = await engine.start((*bench.base, key))
        assert len(list(engine.layers.placements.iterdir())) > 0
        await engine.remove([key])
        assert (await Place(sandbox).run("cat", "/usr/bin/to-go")).stdout == "to-go"
        await sandbox.close()
        assert await engine.have([key]) == frozenset()
        places = [each.read_text() for each in engine.layers.placements.glob("*/placement.json")]
        assert not any(key in text for text in places)

    bench.trial(body)


def test_the_end_of_the_helper_is_an_error_not_a_hang(bench: Bench) -> None:
    async def body() -> None:
        sandbox = await bench.engine.start(bench.base)
        process = bench.engine.helper._process
        assert process is not None
        running = asyncio.ensure_future(Place(sandbox).run("sleep", "1000"))
        await Place(sandbox).run("true")
        process.kill()
        with pytest.raises(EngineError):
            await Place(sandbox).run("true")
        ended = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(ended[0], EngineError) or ended[0].completed.exit_code == 137  # type: ignore[union-attr]

    bench.trial(body)


def test_a_command_for_a_sandbox_whose_init_was_just_killed_is_told_of_its_end(bench: Bench) -> None:
    async def body() -> None:
        sandbox = await bench.engine.start(bench.base)
        assert sandbox.pid is not None
        watched = os.pidfd_open(sandbox.pid)
        os.kill(sandbox.pid, signal.SIGKILL)
        # The loop stands still until the init is gone, so that the client cannot have heard of it.
        assert select.select([watched], [], [], 30)[0]
        os.close(watched)
        with pytest.raises(EngineError, match="the sandbox has ended: its init was ended"):
            await Place(sandbox).run("true")
        with pytest.raises(EngineError, match="the sandbox has ended: its init was ended"):
            await Place(sandbox).run("true")

    bench.trial(body)


def test_an_engine_can_be_used_again_after_it_was_closed(bench: Bench) -> None:
    async def body() -> list[int]:
        codes = []
        for _ in range(2):
            sandbox = await bench.engine.start(bench.base)
            codes.append((await Place(sandbox).run("true")).completed.exit_code)
            await bench.engine.close()
            await bench.engine.close()
        return codes

    assert bench.trial(body) == [0, 0]


def test_long_messages_arrive(empty_engine: LinuxEngine) -> None:
    async def body() -> Any:
        helper = empty_engine.helper
        await helper.start()
        try:
            path = f"{helper.base}/long/text"
            _, text = await helper.do(WriteFile(path, "é" * 400_000), ReadText("/", path, 1 << 22))
            return text
        finally:
            await empty_engine.close()

    assert asyncio.run(body()) == "é" * 400_000


def test_what_the_helper_refuses_names_the_operation(empty_engine: LinuxEngine) -> None:
    async def body() -> None:
        try:
            await empty_engine.helper.start()
            await empty_engine.helper.do(MakeDirectory("/proc/nothing/here"))
        finally:
            await empty_engine.close()

    with pytest.raises(EngineError, match="refused to mkdir") as caught:
        asyncio.run(body())
    assert caught.value.details == ("mkdir path='/proc/nothing/here' mode=493 guest=False",)


def test_a_missing_runtime_is_named_with_its_remedy(tmp_path: Path) -> None:
    engine = LinuxEngine(tmp_path / "home", runtime="no-such-runtime")
    with pytest.raises(EngineError, match="no-such-runtime") as caught:
        assert engine.runtime
    assert caught.value.hint == "sudo apt-get install crun"
