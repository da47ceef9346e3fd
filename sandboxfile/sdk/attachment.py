"""Having a volume to oneself."""

from __future__ import annotations

import fcntl
import os

from sandboxfile.declared import replace
from sandboxfile.errors import VolumeInUse
from sandboxfile.sdk.session import Session
from sandboxfile.store.failure import reported
from sandboxfile.store.locks import try_acquire
from sandboxfile.store.volumes import VolumeRecord


class Attachment:
    """A volume that this client, and within it one sandbox or one verb, has to itself until `release`."""

    def __init__(self, session: Session, record: VolumeRecord, descriptor: int) -> None:
        self.record = record
        self._table = session.store.index.volumes
        self._descriptor = descriptor
        self._named = False

    def name_user(self, sandbox: str) -> None:
        """Say which sandbox has it."""
        self._table.set_user(self.record.id, sandbox)
        self._named = True

    @property
    def descriptor(self) -> int:
        """What holds it: whoever has this open has the volume."""
        return self._descriptor

    def hand_over(self) -> None:
        """Leave it to whoever has the descriptor as well."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def release(self) -> None:
        """Let others have it. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if self._named:
                self._table.set_user(self.record.id, None)
        finally:
            os.close(descriptor)


async def attach(session: Session, target: str) -> Attachment:
    """Take a volume, by slug or id. NoSuchVolume; VolumeInUse when a sandbox of anybody has it."""
    table = session.store.index.volumes
    known = table.get(target)
    with reported("locking a volume"):
        descriptor = try_acquire(session.store.locks.path(known.lock_name), fcntl.LOCK_EX)
    if descriptor is None:
        raise in_use(known)
    try:
        # Read again: it may have been snapshotted or deleted before the lock was ours.
        return Attachment(session, await _settled(session, table.get(known.id)), descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def is_attached(session: Session, record: VolumeRecord) -> bool:
    """Whether anybody has a volume now."""
    descriptor = try_acquire(session.store.locks.path(record.lock_name), fcntl.LOCK_SH, create=False)
    if descriptor is None:
        return session.store.locks.path(record.lock_name).exists()
    os.close(descriptor)
    return False


def in_use(record: VolumeRecord) -> VolumeInUse:
    """The error that says who has a volume."""
    who = f"the sandbox {record.attached_by}" if record.attached_by else "another client"
    return VolumeInUse(
        f"the volume `{record.slug}` is in use by {who}",
        hint="close that sandbox first; to have the same content twice, snapshot the volume",
    )


async def _settled(session: Session, record: VolumeRecord) -> VolumeRecord:
    """The record after what a client left half done: the layer it was making is there, or it is not."""
    if record.pending is None:
        return record
    made = await session.present((record.pending,))
    stack = (*record.stack, record.pending) if made else record.stack
    settled = replace(record, stack=stack, pending=None)
    session.store.index.volumes.update(settled)
    return settled
