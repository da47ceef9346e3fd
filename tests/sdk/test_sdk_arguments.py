"""An argument out of range is a UsageError that names it, and nothing is made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sdk_world import World

from sandboxfile.errors import SandboxfileError, UsageError
from sandboxfile.sdk import arguments

SANDBOX = [
    ("root", None),
    ("root", 5),
    ("root", ""),
    ("port", 0),
    ("port", 65536),
    ("port", "80"),
    ("port", True),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", float("nan")),
    ("timeout", float("inf")),
    ("timeout", "soon"),
    ("timeout", "0s"),
    ("timeout", "400000h"),
    ("timeout", b"5m"),
    ("memory", 0),
    ("memory", -5),
    ("memory", 1024),
    ("memory", "1024"),
    ("memory", "lots"),
    ("memory", 1.5),
    ("memory", 1 << 70),
    ("cpus", 0),
    ("cpus", -1),
    ("cpus", float("nan")),
    ("cpus", 1e9),
    ("cpus", "2"),
    ("pids", 0),
    ("pids", 1),
    ("pids", 2.5),
    ("pids", 10**9),
    ("disk", 1),
    ("disk", "0MB"),
    ("open_files", 0),
    ("output", 0),
    ("env", {"A=B": "x"}),
    ("env", {"": "x"}),
    ("env", {"A": "nul\0"}),
    ("env", {"A": 1}),
    ("env", ["A=1"]),
    ("labels", {str(n): "x" for n in range(6)}),
    ("labels", {"k" * 65: "x"}),
    ("labels", {"k": "x" * 129}),
    ("labels", {"": "x"}),
    ("labels", {"k": None}),
    ("volumes", {"data": "v"}),
    ("volumes", {"/": "v"}),
    ("volumes", {"/a/../b": "v"}),
    ("volumes", {"/proc/x": "v"}),
    ("volumes", {"/sys": "v"}),
    ("volumes", {"/dev/shm": "v"}),
    ("volumes", {"/a": "v", "/a/": "w"}),
    ("volumes", {"/a": 5}),
    ("volumes", {5: "v"}),
    ("volumes", "v"),
    ("network", "some"),
    ("network", True),
    ("privileges", "root"),
    ("limits", "loose"),
    ("region", "Ord 1"),
]
VOLUME = [
    ("slug", "x"),
    ("slug", "x" * 33),
    ("slug", "Name"),
    ("slug", "-name"),
    ("slug", "a--b"),
    ("slug", "a/b"),
    ("slug", "é"),
    ("slug", 5),
    ("slug", None),
    ("capacity", 0),
    ("capacity", 100),
    ("capacity", -(10**9)),
    ("capacity", "10 potatoes"),
    ("capacity", "10"),
    ("capacity", 10.5),
    ("capacity", True),
    ("region", ""),
    ("region", 5),
    ("from_", 5),
    ("from_", ""),
    ("limits", "none"),
]


@pytest.mark.parametrize(("name", "value"), SANDBOX)
def test_a_sandbox_argument_out_of_range_is_named(memory: World, name: str, value: Any) -> None:
    async def main() -> None:
        async with memory.client() as client:
            with pytest.raises(UsageError, match=f"`{name}") as caught:
                await client.sandboxes.create(**{"root": "base", name: value})
            assert not caught.value.message.endswith(".")
            assert await client.sandboxes.list() == ()
            assert client.engine.sandboxes == ()

    asyncio.run(main())


@pytest.mark.parametrize(("name", "value"), VOLUME)
def test_a_volume_argument_out_of_range_is_named(memory: World, name: str, value: Any) -> None:
    async def main() -> None:
        async with memory.client() as client:
            with pytest.raises(UsageError, match=f"`{name}"):
                await client.volumes.create(**{"slug": "name", name: value})
            assert await client.volumes.list() == ()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("verb", "given", "named"),
    [
        ("sh", {"script": 5}, "script"),
        ("sh", {"script": "true", "cwd": "relative"}, "cwd"),
        ("sh", {"script": "true", "user": "a b"}, "user"),
        ("sh", {"script": "true", "user": 5}, "user"),
        ("sh", {"script": "true", "timeout": 0}, "timeout"),
        ("sh", {"script": "true", "stdout": "file"}, "stdout"),
        ("sh", {"script": "true", "env": {"A": 5}}, "env"),
        ("expose_http", {"port": 0}, "port"),
        ("expose_http", {"port": None}, "port"),
        ("extend_timeout", {"timeout": -3}, "timeout"),
        ("extend_timeout", {"timeout": None}, "timeout"),
        ("snapshot", {"slug": "No"}, "slug"),
        ("fork", {"volumes": {"x": "y"}}, "volumes"),
    ],
)
def test_an_argument_of_a_running_sandbox_is_named(
    memory: World, verb: str, given: dict[str, Any], named: str
) -> None:
    async def main() -> None:
        async with memory.client() as client, await client.sandboxes.create("base", timeout=60) as sandbox:
            with pytest.raises(UsageError, match=named):
                await getattr(sandbox, verb)(**given)

    asyncio.run(main())


@pytest.mark.parametrize("argv", [(), ("",), ("ls", 5), ("ls", "a\0b"), (None,)])
def test_words_of_a_command_are_texts(memory: World, argv: tuple[Any, ...]) -> None:
    async def main() -> None:
        async with memory.client() as client, await client.sandboxes.create("base") as sandbox:
            with pytest.raises(UsageError):
                await sandbox.spawn(*argv)

    asyncio.run(main())


@pytest.mark.parametrize("signal", ["TERM", "SIGNOTHING", 0, 65, -1, None, True])
def test_a_signal_that_is_none_is_refused(memory: World, signal: Any) -> None:
    async def main() -> None:
        async with memory.client() as client, await client.sandboxes.create("base") as sandbox:
            process = await sandbox.spawn("sleep", "1000", stdout="null", stderr="null")
            with pytest.raises(UsageError, match="`signal`"):
                await process.kill(signal)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "count"),
    [("10GB", 10**10), ("512MiB", 512 << 20), ("1.5GB", 15 * 10**8), (1 << 20, 1 << 20), (None, None)],
)
def test_sizes_are_numbers_or_texts(given: Any, count: int | None) -> None:
    assert arguments.size(given, "memory", 1 << 20) == count


@pytest.mark.parametrize(("given", "seconds"), [("30m", 1800), ("1h30m", 5400), (0.5, 0.5), (None, None)])
def test_durations_are_seconds_or_texts(given: Any, seconds: float | None) -> None:
    assert arguments.seconds(given) == seconds


def test_a_limit_that_an_engine_cannot_enforce_is_refused_unless_best_effort_is_enough(memory: World) -> None:
    async def main() -> None:
        async with memory.client() as client:
            with pytest.raises(SandboxfileError, match="memory") as caught:
                await client.sandboxes.create("base", memory="128MiB")
            assert type(caught.value).__name__ == "LimitNotEnforceable"
            async with await client.sandboxes.create(
                "base", memory="128MiB", limits="best-effort"
            ) as sandbox:
                assert (await sandbox.sh("echo ok")).text == "ok\n"

    asyncio.run(main())
