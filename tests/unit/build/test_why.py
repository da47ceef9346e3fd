"""Why something is built: now, in an earlier build, and after an eviction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from sandboxfile.api import AsyncClient
from sandboxfile.core.layer import LayerKey
from sandboxfile.engines.memory.engine import MemoryEngine, Scripted
from sandboxfile.errors import CacheMiss, LockStale, UsageError

T = TypeVar("T")


class World:
    """A project, its store, and an engine that outlives its clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "project"
        self.home = directory / "home"
        self.directory.mkdir()
        self.engine = MemoryEngine(
            script={f"make {what}": Scripted(files={f"/{what}": what}) for what in ("one", "two", "new")}
        )
        self.steps("make one", "make two")

    def steps(self, *steps: str, more: str = "") -> None:
        """Write the Sandboxfile."""
        lines = "".join(f"  - {step}\n" for step in steps)
        (self.directory / "Sandboxfile").write_text(f"name: web\nbase: scratch\nrun:\n{lines}{more}")

    def do(self, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """Do something with a client."""

        async def session() -> T:
            client = AsyncClient(home=self.home, engine="memory")
            client._opened = self.engine
            try:
                return await work(client)
            finally:
                client._opened = None  # its layers stay
                await client.close()

        return asyncio.run(session())

    def build(self, *, expect_cached: bool = False) -> str:
        """Build; the slug."""

        async def work(client: AsyncClient) -> str:
            project = client.load(directory=self.directory)
            return (await client.build(project, expect_cached=expect_cached)).slug

        return self.do(work)

    def reasons(self, since: str | None = None) -> dict[str, tuple[str, str]]:
        """Code and text of the reason of each layer."""

        async def work(client: AsyncClient) -> dict[str, tuple[str, str]]:
            found = await client.plan(client.load(directory=self.directory), since=since)
            return {each.node: (each.reason.code, each.reason.text) for each in found.actions}

        return self.do(work)

    def evict(self) -> None:
        """Let gc take everything, and the engine with it."""

        async def work(client: AsyncClient) -> None:
            for info in client.stored_snapshots():
                await client.remove_snapshot(info.slug)
            await client.gc(keep_days=0)

        self.do(work)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_eviction_is_the_reason_of_the_rebuild_whatever_else_changed(world: World) -> None:
    world.build()
    world.evict()
    code, text = world.reasons()["run-1"]
    assert code == "evicted"
    assert text.startswith("built before, but evicted on ")
    assert text.endswith(": `cache gc`: the snapshot or volume it belonged to was removed")
    world.build()
    assert world.reasons()["run-1"] == ("present", "already built")


def test_a_step_that_changed_is_told_from_one_that_was_evicted(world: World) -> None:
    world.build()
    world.evict()
    world.steps("make one", "make new")
    reasons = world.reasons()
    assert reasons["run-1"][0] == "evicted"
    assert reasons["run-2"][0] != "evicted"


def test_an_earlier_build_keeps_its_actions_and_reasons(world: World) -> None:
    first = world.build()
    world.steps("make one", "make new")
    second = world.build()

    async def work(client: AsyncClient) -> None:
        project = client.load(directory=world.directory)
        assert [(b.number, b.slug) for b in client.builds(project)] == [(2, second), (1, first)]
        actions = {done.node: done for done in client.past_build(project, "2").actions}
        assert (actions["run-1"].action, actions["run-2"].action) == ("reuse", "build")
        assert actions["run-2"].text == "command: make two -> make new"
        assert client.past_build(project, first).number == 1
        with pytest.raises(UsageError, match="no build `9`") as caught:
            client.past_build(project, "9")
        assert caught.value.hint == "there are 1, 2; `sandboxfile explain --builds` lists them"

    world.do(work)


def test_a_build_that_finds_nothing_changed_is_not_remembered_as_another(world: World) -> None:
    world.build()
    world.build()
    assert world.do(_count(world)) == 1


def _count(world: World) -> Callable[[AsyncClient], Awaitable[int]]:
    async def work(client: AsyncClient) -> int:
        return len(client.builds(client.load(directory=world.directory)))

    return work


def test_changes_are_told_since_any_build(world: World) -> None:
    world.build()
    world.steps("make one", "make new")
    world.build()
    world.steps("make one", "make third")
    assert world.reasons()["run-2"][1] == "command: make new -> make third"
    assert world.reasons(since="1")["run-2"][1] == "command: make two -> make third"
    with pytest.raises(UsageError, match="no build `7`"):
        world.reasons(since="7")


def test_a_layer_of_any_build_is_found_by_the_beginning_of_its_key(world: World) -> None:
    world.build()

    async def key_of(client: AsyncClient) -> LayerKey:
        return client.builds(client.load(directory=world.directory))[0].layers["run-2"]

    key = world.do(key_of)
    world.steps("make one", "make new")
    world.build()
    world.evict()

    async def work(client: AsyncClient) -> None:
        known = client.find_layer(key.partition(":")[2][:12])
        assert known is not None
        assert (known.key, known.name, known.kind) == (key, "run-2", "run")
        assert known.definition is not None
        assert known.definition["definition"]["command"] == "make two"
        assert known.builds == ((str(world.directory / "Sandboxfile"), 1),)
        assert known.eviction is not None
        assert client.find_layer("123") is None
        assert client.find_layer("no-digits") is None

    world.do(work)


def test_expect_cached_is_content_with_what_is_there(world: World) -> None:
    slug = world.build()
    assert world.build(expect_cached=True) == slug


def test_expect_cached_fails_at_the_first_miss_before_anything_is_built(world: World) -> None:
    world.build()
    world.steps("make new", "make two")
    with pytest.raises(CacheMiss) as caught:
        world.build(expect_cached=True)
    assert caught.value.node == "run-1"
    assert caught.value.message == "`run-1` would have to be built: command: make one -> make new"
    assert caught.value.span is not None
    assert world.do(_count(world)) == 1


def test_expect_cached_counts_a_check_that_is_not_known_to_pass(world: World) -> None:
    world.build()
    world.steps("make one", "make two", more="verify:\n  - make one\n")
    with pytest.raises(CacheMiss, match=r"`verify-1` would have to be run: new check"):
        world.build(expect_cached=True)


def test_expect_cached_never_touches_the_lock(world: World) -> None:
    with pytest.raises(LockStale):
        world.build(expect_cached=True)
    assert not (world.directory / "sandboxfile.lock").exists()
