"""`client.volumes`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxfile.build.result import SnapshotInfo
from sandboxfile.core.layer import LayerKey, layer_key
from sandboxfile.declared import dataclass, replace
from sandboxfile.errors import SlugTaken, UsageError
from sandboxfile.sdk import arguments
from sandboxfile.sdk.attachment import attach, is_attached
from sandboxfile.sdk.session import Session, new_layer, snapshot_info
from sandboxfile.store.failure import reported
from sandboxfile.store.gc import GRACE
from sandboxfile.store.names import new_id
from sandboxfile.store.volumes import VolumeRecord

if TYPE_CHECKING:
    from sandboxfile.sdk.sandboxes import AsyncSandboxes

LIMITS = ("strict", "best-effort")


@dataclass(frozen=True)
class VolumeInfo:
    """A volume.

    capacity: bytes that can be written to it, None for no limit
    parent:   slug of the snapshot it was made from, None when it was made empty
    bootable: whether it holds a system, so that it can be a sandbox's root
    sandbox:  id of the sandbox that has it mounted now, None when none has
    created:  seconds since the epoch
    """

    slug: str
    id: str
    region: str
    capacity: int | None
    parent: str | None
    bootable: bool
    sandbox: str | None
    created: float


Volume = str | VolumeInfo
"""A volume by slug, by id, or as it was told."""


class AsyncVolumes:
    """Writable disks that outlive sandboxes. One sandbox at a time has one mounted."""

    def __init__(self, session: Session, sandboxes: AsyncSandboxes) -> None:
        self._session = session
        self._sandboxes = sandboxes

    async def create(
        self,
        slug: str,
        capacity: arguments.Size | None = None,
        region: str | None = None,
        from_: str | SnapshotInfo | None = None,
        *,
        limits: str = "strict",
    ) -> VolumeInfo:
        """Make a volume: empty, or with what a snapshot holds.

        capacity: bytes that can be written to it, or a text such as `10GB`; None for no limit
        from_:    a snapshot, by slug or name
        limits:   `best-effort` takes a capacity that this host cannot strictly enforce

        SlugTaken, NoSuchSnapshot, LimitNotEnforceable.
        """
        arguments.slug(slug)
        room = arguments.size(capacity, "capacity", arguments.LEAST_CAPACITY)
        place = arguments.region(region)
        best_effort = arguments.choice(limits, "limits", LIMITS) == "best-effort"
        store = self._session.store
        stack: tuple[LayerKey, ...] = ()
        config: Mapping[str, Any] = {}
        parent = None
        if from_ is not None:
            snapshot = store.index.find(slug_of(from_, "from_"))
            stack, config, parent = snapshot.layers, snapshot.config, snapshot.slug
        store.index.check_slug_free(slug)
        record = VolumeRecord(slug, new_id("vol"), place, room, stack, config, parent, time.time())
        with store.uses.hold(layers=stack):
            if parent is not None:
                await self._session.require(stack, f"the snapshot {parent}")
            await self._session.engine.create_volume(record.id, room, stack, best_effort=best_effort)
            try:
                store.index.volumes.add(record)
            except BaseException:
                await self._session.engine.remove_volume(record.id)
                raise
        return self._info(record)

    async def get(self, volume: Volume) -> VolumeInfo:
        """What is known of a volume now. NoSuchVolume."""
        return self._info(self._record(volume))

    async def list(self) -> tuple[VolumeInfo, ...]:
        """Every volume, newest first."""
        return tuple(map(self._info, self._session.store.index.volumes.all()))

    async def delete(self, volume: Volume) -> None:
        """Delete a volume and what it holds; snapshots made of it stay. NoSuchVolume, VolumeInUse."""
        attachment = await attach(self._session, self._record(volume).id)
        try:
            self._session.store.index.volumes.remove(attachment.record)
            await self._session.engine.remove_volume(attachment.record.id)
        finally:
            attachment.release()

    async def snapshot(self, volume: Volume, slug: str) -> SnapshotInfo:
        """Make a snapshot of what a volume holds.

        In a time that does not depend on its size when no sandbox has it. One that a running sandbox of
        this client has is copied while the sandbox is frozen; `pause` of the result says for how long.
        SlugTaken, NoSuchVolume, VolumeInUse.
        """
        arguments.slug(slug)
        record = self._record(volume)
        self._session.store.index.check_slug_free(slug)
        sandbox = self._sandboxes.user_of(record.id)
        if sandbox is not None:
            return await sandbox._snapshot_volume(record, slug)
        attachment = await attach(self._session, record.id)
        try:
            return await self._freeze(attachment.record, slug)
        finally:
            attachment.release()

    async def sweep(self) -> None:
        """Delete what clients left behind that were killed while they made or deleted a volume."""
        store = self._session.store
        known = {record.id for record in store.index.volumes.all()}
        before = time.time() - GRACE
        with reported("looking at the volumes"):
            left = [
                path.name
                for path in store.volumes.iterdir()
                if path.is_dir()
                and not path.name.startswith(".")
                and path.name not in known
                # One that is being made has no record yet.
                and path.stat().st_mtime < before
            ]
        for name in left:
            await self._session.engine.remove_volume(name)

    async def _freeze(self, record: VolumeRecord, slug: str) -> SnapshotInfo:
        session = self._session
        volumes = session.store.index.volumes
        definition = new_layer(record.stack)
        key = layer_key(definition)
        with session.store.uses.hold(layers=(*record.stack, key)):
            await session.require(record.stack, f"the volume {record.slug}")
            # Said before it is done: the next who takes the volume can then tell how far this came.
            volumes.update(replace(record, pending=key))
            committed = await session.engine.freeze_volume(record.id, definition, key)
            session.record_layer(definition, slug, committed)
            frozen = replace(record, stack=(*record.stack, key), pending=None)
            volumes.update(frozen)
            try:
                published = session.publish(slug, frozen.stack, record.config)
            except SlugTaken as taken:
                taken.hint = "the volume is unchanged; choose another slug"
                raise
        return snapshot_info(session.store, published)

    def _record(self, volume: Volume) -> VolumeRecord:
        return self._session.store.index.volumes.get(slug_of(volume, "volume"))

    def _info(self, record: VolumeRecord) -> VolumeInfo:
        return VolumeInfo(
            slug=record.slug,
            id=record.id,
            region=record.region,
            capacity=record.capacity,
            parent=record.parent,
            bootable=self._session.is_bootable(record.stack),
            sandbox=record.attached_by if is_attached(self._session, record) else None,
            created=record.created,
        )


def slug_of(target: object, name: str) -> str:
    """The slug, id or name that a caller gave, as text or as what was told about it."""
    text = target if isinstance(target, str) else getattr(target, "slug", None)
    if not isinstance(text, str) or not text:
        raise UsageError(f"`{name}` cannot be {target!r}", hint="write a slug")
    return text


def config_text(config: Mapping[str, Any], name: str, default: str) -> str:
    """A text out of a snapshot's configuration, which is JSON."""
    value = config.get(name)
    return value if isinstance(value, str) and value else default
