"""From a stack of layer keys to the directories an overlay is made of."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from sandboxfile.core.digest import hexadecimal
from sandboxfile.core.layer import LayerKey
from sandboxfile.engine.base import Stack
from sandboxfile.engines.linux.helper_client import HelperClient, OperationFailed
from sandboxfile.engines.linux.layers import Layers, placement_name, write_json
from sandboxfile.engines.linux.operations import MakeDirectory, OverlayMount, Unmount
from sandboxfile.engines.linux.work import work
from sandboxfile.errors import EngineError

MOST_LAYERS = 400
_EMPTY = "empty"
_BEING_MADE = 3600.0


class Stacks:
    """Finds the directories of stacks, and places detached layers where they need it (see
    `worker.placement`). Placements are kept in the store, so each is made once."""

    def __init__(self, layers: Layers, helper: HelperClient) -> None:
        self._layers = layers
        self._helper = helper
        self._placed: dict[str, str] = {}
        # Where images are mounted, by which helper; and those that are being mounted now.
        self._images: dict[str, int | None] = {}
        self._mounting: dict[str, asyncio.Future[None]] = {}

    async def directories(self, stack: Stack) -> list[str]:
        """The directories of a stack, lowest first. Raises EngineError for a layer that is not here."""
        if len(stack) > MOST_LAYERS:
            raise EngineError(
                f"the stack has {len(stack)} layers, and {MOST_LAYERS} can be mounted",
                hint="sandboxfile lock --squash",
            )
        found: list[str] = []
        for number, key in enumerate(stack):
            sealed = self._layers.sealed(key)
            directory = str(self._layers.directory(key) / "fs")
            if sealed.image:
                directory = await self._image_directory(key)
            if sealed.implied is not None and found:
                directory = await self._placed_directory(key, stack[:number], found, sealed.implied)
            found.append(directory)
        return found

    async def _image_directory(self, key: LayerKey) -> str:
        """The content of a layer that is an image; it is mounted when it is first needed."""
        target = f"{await self._base()}/images/{hexadecimal(key)}"
        if self._images.get(target) != self._helper.pid:
            mounting = self._mounting.get(target)
            if mounting is None:
                mounting = self._mounting[target] = asyncio.ensure_future(self._mount_image(key, target))
                mounting.add_done_callback(lambda _: self._mounting.pop(target, None))
            await asyncio.shield(mounting)
        return f"{target}/fs"

    async def _mount_image(self, key: LayerKey, target: str) -> None:
        args = {"image": str(self._layers.directory(key) / "image"), "target": target, "guest": None}
        await work(self._helper, "attach_image", args, mapped=False)
        self._images[target] = self._helper.pid

    async def release(self, keys: Sequence[LayerKey]) -> None:
        """Unmount the images of layers that are going to be removed."""
        for key in keys:
            target = f"{self._helper.base}/images/{hexadecimal(key)}"
            if self._helper.running and self._images.pop(target, None) == self._helper.pid:
                await work(self._helper, "detach_image", {"target": target}, mapped=False)

    async def _placed_directory(
        self, key: LayerKey, below_keys: Sequence[LayerKey], below: list[str], implied: tuple[str, ...]
    ) -> str:
        name = placement_name(key, below_keys)
        known = self._placed.get(name)
        if known:
            return known
        place = self._layers.placements / name
        record = place / "placement.json"
        source = str(self._layers.directory(key) / "fs")
        if not record.exists():
            await self._place(key, below_keys, below, implied, source, place)
        direct = json.loads(record.read_bytes())["direct"]
        self._placed[name] = source if direct else str(place / "fs")
        return self._placed[name]

    async def _place(
        self,
        key: LayerKey,
        below_keys: Sequence[LayerKey],
        below: list[str],
        implied: tuple[str, ...],
        source: str,
        place: Path,
    ) -> None:
        view = f"{await self._base()}/views/{os.urandom(8).hex()}"
        await self._helper.do(OverlayMount(view, await self.lowers(below)))
        beside = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
        beside.mkdir(mode=0o700)
        try:
            dirs = {"below": view, "source": source}
            args = {"implied": list(implied)}
            direct = await work(self._helper, "agree", args, dirs)
            if not direct:
                target = str(beside / "fs")
                await self._helper.do(MakeDirectory(target, 0o755, guest=True))
                await work(self._helper, "materialise", args, dirs | {"target": target})
            record = {"layer": key, "below": list(below_keys), "direct": direct}
            write_json(beside / "placement.json", record)
            try:
                os.rename(beside, place)
            except OSError:
                # Somebody else placed it meanwhile.
                await self._discard(beside)
        except BaseException:
            await self._discard(beside)
            raise
        finally:
            await self._helper.do(Unmount(view))

    async def _discard(self, path: Path) -> None:
        await work(self._helper, "delete", {"names": [path.name]}, {"parent": str(path.parent)}, mapped=False)

    async def lowers(self, directories: Sequence[str], *, writable: bool = False) -> list[str]:
        """The lower directories of an overlay, topmost first; filled up with an empty one where the kernel
        wants more: one below an upper directory, two in a read-only view."""
        found = list(reversed(directories))
        while len(found) < (1 if writable else 2):
            empty = f"{await self._base()}/{_EMPTY}-{len(found)}"
            try:
                await self._helper.do(MakeDirectory(empty, 0o755, guest=True))
            except OperationFailed as error:
                if error.number != 17:
                    raise
            found.append(empty)
        return found

    async def _base(self) -> str:
        if not self._helper.base or not self._helper.running:
            await self._helper.start()
        return self._helper.base

    def leftovers(self) -> list[Path]:
        """Placements that nothing can use: half-made long ago, or with a layer that is no longer here."""
        found = []
        for place in self._layers.placements.iterdir():
            if place.name.startswith("."):
                if time.time() - place.stat().st_mtime > _BEING_MADE:
                    found.append(place)
                continue
            try:
                record = json.loads((place / "placement.json").read_bytes())
                usable = all(self._layers.has(key) for key in (record["layer"], *record["below"]))
            except (OSError, ValueError, KeyError):
                usable = False
            if not usable:
                found.append(place)
        return found

    def forget(self, keys: Sequence[LayerKey]) -> list[Path]:
        """The placements that mention a layer; they are not used again."""
        self._placed.clear()
        found = []
        for place in self._layers.placements.iterdir():
            try:
                record = json.loads((place / "placement.json").read_bytes())
            except (OSError, ValueError):
                continue
            if not {record["layer"], *record["below"]}.isdisjoint(keys):
                found.append(place)
        return found
