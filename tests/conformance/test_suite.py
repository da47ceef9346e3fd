"""The suite notices engines that break a promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sandboxfile.core.layer import DebianBase, layer_key
from sandboxfile.engines.memory import engine, execution, machine, workspace
from sandboxfile.engines.memory.engine import MemoryEngine
from sandboxfile.engines.memory.filesystem import Change, Filesystem
from sandboxfile.engines.memory.programs import echo_server
from sandboxfile.engines.memory.volumes import Disk
from sandboxfile.testing.conformance import PROMISES

Break = Callable[[pytest.MonkeyPatch], None]


def forget_deletions(patch: pytest.MonkeyPatch) -> None:
    whole = workspace.difference
    patch.setattr(
        workspace, "difference", lambda lower, upper: replace(whole(lower, upper), removed=frozenset())
    )


def forget_implied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Filesystem, "make_parents", _silent(Filesystem.make_parents))


def _silent(make: Any) -> Any:
    def made(self: Filesystem, path: str) -> tuple[str, ...]:
        make(self, path)
        return ()

    return made


def inherit_a_variable(patch: pytest.MonkeyPatch) -> None:
    begin = execution.begin

    def leaking(machine: Any, nodes: Any, command: Any, *rest: Any, **options: Any) -> Any:
        return begin(machine, nodes, replace(command, env={**command.env, "LEAK": "1"}), *rest, **options)

    patch.setattr(execution, "begin", leaking)


def keep_secrets(patch: pytest.MonkeyPatch) -> None:
    view = execution._view

    def keeping(nodes: Any, proc: Any, command: Any, *rest: Any) -> Any:
        files = view(nodes, proc, command, *rest)
        nodes.update({path: node for path, node in files.mounted.items() if path.startswith("/run/secrets")})
        return files

    patch.setattr(execution, "_view", keeping)


def kill_only_the_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine.Machine, "_line", lambda self, running: [running.process.pid])


def share_one_tree(patch: pytest.MonkeyPatch) -> None:
    trees: dict[Any, Any] = {}

    def shared(nodes: Any, capacity: Any, lower: Any) -> Any:
        return trees.setdefault(tuple(sorted(lower)), Disk(nodes, capacity, lower))

    patch.setattr(engine, "Disk", shared)


def share_ports(patch: pytest.MonkeyPatch) -> None:
    make = machine.Machine.__init__
    ports: dict[int, asyncio.Server] = {}

    def shared(self: machine.Machine, *given: Any) -> None:
        make(self, *given)
        self.listeners = ports

    patch.setattr(machine.Machine, "__init__", shared)


def replace_committed_layers(patch: pytest.MonkeyPatch) -> None:
    def publish(self: MemoryEngine, layer: Any) -> Any:
        self._layers[layer.committed.key] = layer
        return layer.committed

    patch.setattr(MemoryEngine, "publish", publish)


def never_follow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        workspace,
        "Change",
        lambda nodes, removed, implied, follow: Change(nodes, removed, implied, follow=False),
    )


@pytest.mark.parametrize(
    ("breaking", "promise"),
    [
        (forget_deletions, "deletions_survive_a_commit"),
        (forget_deletions, "a_replaced_directory_is_empty"),
        (forget_implied, "implied_directories_keep_the_attributes_of_the_chain"),
        (inherit_a_variable, "the_environment_is_exactly_what_was_given"),
        (keep_secrets, "secrets_are_readable_and_leave_no_trace"),
        (kill_only_the_first, "a_timeout_ends_the_whole_tree"),
        (share_one_tree, "a_sandbox_does_not_change_what_it_was_started_from"),
        (share_ports, "ports_of_two_sandboxes_are_two_ports"),
        (replace_committed_layers, "a_second_commit_of_a_key_changes_nothing"),
        (never_follow, "detached_layers_follow_the_links_of_the_chain"),
    ],
)
def test_a_broken_engine_does_not_keep_its_promise(
    breaking: Break, promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxfile.testing.promise.PATIENCE", 3.0)
    wanted = next(each for each in PROMISES if each.name == promise)
    breaking(monkeypatch)

    async def main() -> None:
        fake = MemoryEngine(programs={"perl": echo_server})
        base = DebianBase(suite="trixie", architecture="amd64", packages=(), epoch=0)
        made = await fake.bootstrap(base, {}, lambda stream, data: None)
        await made.commit(base, layer_key(base))
        with pytest.raises((AssertionError, TimeoutError)):
            await wanted(fake, (layer_key(base),))

    asyncio.run(main())
