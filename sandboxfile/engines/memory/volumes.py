"""Volumes of the memory engine, and trees that hold no more bytes than they may."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from sandboxfile.declared import dataclass
from sandboxfile.engines.memory.filesystem import ROOT_DIRECTORY, Node, failure
from sandboxfile.errors import VolumeInUse


@dataclass
class Region:
    """A part of a tree with a capacity of its own (bytes, None for no limit). What equals `lower` costs
    nothing: it is shared with the layers below."""

    capacity: int | None
    lower: Mapping[str, Node]
    used: int = 0


class Disk(dict[str, Node]):
    """A tree in which the bytes of files are counted, by the directory that a region is mounted on. Taking
    more than a region holds is an OSError (ENOSPC)."""

    def __init__(self, nodes: Mapping[str, Node], capacity: int | None, lower: Mapping[str, Node]) -> None:
        super().__init__(nodes)
        self.regions = {"": Region(capacity, lower)}
        self.regions[""].used = sum(_cost(self.regions[""], path, node) for path, node in nodes.items())

    def __setitem__(self, path: str, node: Node) -> None:
        region, inner = self._region(path)
        old = self.get(path)
        more = _cost(region, inner, node) - (_cost(region, inner, old) if old else 0)
        if more > 0 and region.capacity is not None and region.used + more > region.capacity:
            raise failure(errno.ENOSPC, path)
        region.used += more
        super().__setitem__(path, node)

    def pop(self, path: str, *default: Any) -> Any:
        """Take an entry out; the room is free again."""
        old = self.get(path)
        if old is not None:
            region, inner = self._region(path)
            region.used -= _cost(region, inner, old)
        return super().pop(path, *default)

    def mount(self, path: str, volume: MemoryVolume) -> None:
        """Show a volume at a directory, in place of what is there."""
        for each in [each for each in self if each.startswith(f"{path}/")]:
            self.pop(each)
        above = ""
        for part in path.split("/")[1:]:
            above = f"{above}/{part}"
            self.setdefault(above, ROOT_DIRECTORY)
        self.regions[path] = Region(volume.capacity, volume.lower)
        for inner, node in volume.nodes.items():
            self[path if inner == "/" else f"{path}{inner}"] = node

    def content(self, path: str) -> dict[str, Node]:
        """What a mounted region holds, by paths inside it."""
        found = {each[len(path) :]: node for each, node in self.items() if each.startswith(f"{path}/")}
        return {"/": self.get(path, ROOT_DIRECTORY), **found}

    def own(self) -> dict[str, Node]:
        """What the tree holds without the mounted regions; their directories stay."""
        tops = [f"{path}/" for path in self.regions if path]
        return {path: node for path, node in self.items() if not any(map(path.startswith, tops))}

    def unmount(self, path: str) -> None:
        """Take a region away with what it holds."""
        for each in [each for each in self if each.startswith(f"{path}/")]:
            super().pop(each)
        del self.regions[path]

    def _region(self, path: str) -> tuple[Region, str]:
        top = max((top for top in self.regions if path == top or path.startswith(f"{top}/")), key=len)
        return self.regions[top], path[len(top) :] or "/"


class MemoryVolume:
    """A tree that outlives the sandboxes that use it. `lower` is what it stands on."""

    def __init__(self, identifier: str, capacity: int | None, lower: dict[str, Node]) -> None:
        self.id = identifier
        self.capacity = capacity
        self.lower = lower
        self.nodes = Disk(lower, capacity, lower)
        self.user: str | None = None
        """The id of the sandbox that uses it."""

    def check_free(self) -> None:
        """VolumeInUse when a sandbox uses it."""
        if self.user is not None:
            raise VolumeInUse(f"the volume {self.id} is used by the sandbox {self.user}")

    def take(self, nodes: Mapping[str, Node]) -> None:
        """Hold this from now on."""
        self.nodes = Disk(nodes, self.capacity, self.lower)

    def freeze(self) -> None:
        """Stand on what it holds: it was committed as a layer."""
        self.lower = dict(self.nodes)
        self.take(self.lower)


def _cost(region: Region, path: str, node: Node) -> int:
    return 0 if region.lower.get(path) == node else len(node.content)
