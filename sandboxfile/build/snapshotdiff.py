"""What differs between two snapshots: packages, files, configuration, size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandboxfile.build.result import SnapshotInfo
from sandboxfile.core.manifest import Difference, Entry, differences, stacked
from sandboxfile.engine.base import Capability, Engine, Stack
from sandboxfile.errors import MissingCapability
from sandboxfile.inputs.dpkgstate import DpkgState

_STATUS = "/var/lib/dpkg/status"
_OF_DEBIAN = "usr/lib/python3/dist-packages/"
"""Where apt's Python packages are; they are counted as apt's."""


@dataclass(frozen=True)
class PackageChange:
    """A package (`kind` is `apt` or `pip`) in two versions; None where it is not there."""

    kind: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class SnapshotDiff:
    """What differs from the first snapshot to the second.

    config: the settings that differ, by name
    sizes:  bytes of all files of each
    """

    packages: tuple[PackageChange, ...]
    files: tuple[Difference, ...]
    config: Mapping[str, tuple[Any, Any]]
    sizes: tuple[int, int]


async def diff(first: SnapshotInfo, second: SnapshotInfo, engine: Engine) -> SnapshotDiff:
    """Compare two snapshots whose layers the engine has. Raises MissingCapability."""
    if Capability.DIFF_ID not in engine.capabilities:
        raise MissingCapability(
            f"the {engine.name} engine cannot read what snapshots hold", Capability.DIFF_ID.value
        )
    stacks = [first.layers, second.layers]
    shared = 0
    for one, other in zip(*stacks, strict=False):
        if one != other:
            break
        shared += 1
    below = await engine.manifests(stacks[0][:shared])
    trees = [
        stacked((*below, *await engine.manifests(stack, start=shared)))
        if len(stack) > shared
        else stacked(below)
        for stack in stacks
    ]
    packages = [await _packages(engine, stack, tree) for stack, tree in zip(stacks, trees, strict=True)]
    configs = [first.config, second.config]
    names = sorted({*configs[0], *configs[1]})
    return SnapshotDiff(
        packages=_package_changes(*packages),
        files=differences(trees[0].values(), trees[1].values(), times=False),
        config={
            name: (configs[0].get(name), configs[1].get(name))
            for name in names
            if _same(configs[0].get(name)) != _same(configs[1].get(name))
        },
        sizes=(_size(trees[0]), _size(trees[1])),
    )


def _same(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _size(tree: Mapping[str, Entry]) -> int:
    return sum(entry.size for entry in tree.values())


Packages = dict[tuple[str, str], str]
"""Versions by kind and name."""


async def _packages(engine: Engine, stack: Stack, tree: Mapping[str, Entry]) -> Packages:
    found: Packages = {}
    if _STATUS.lstrip("/") in tree:
        workspace = await engine.prepare(stack)
        try:
            status = (await workspace.read(_STATUS)).decode("utf-8", "replace")
        finally:
            await workspace.abort()
        found |= {("apt", name): version for name, version in DpkgState(status).versions().items()}
    for path, entry in tree.items():
        if entry.kind == "file" and path.endswith(".dist-info/METADATA") and not path.startswith(_OF_DEBIAN):
            directory = path.removesuffix(".dist-info/METADATA").rpartition("/")[2]
            name, _, version = directory.rpartition("-")
            found["pip", name.lower().replace("_", "-")] = version
    return found


def _package_changes(before: Packages, after: Packages) -> tuple[PackageChange, ...]:
    return tuple(
        PackageChange(*key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )
