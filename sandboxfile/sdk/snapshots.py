"""`client.snapshots`."""

from __future__ import annotations

from sandboxfile.build.result import SnapshotInfo
from sandboxfile.sdk.session import Session, snapshot_info
from sandboxfile.sdk.volumes import slug_of

Snapshot = str | SnapshotInfo
"""A snapshot by slug, by name (the newest of that name), or as it was told."""


class AsyncSnapshots:
    """Read-only states. Any number of sandboxes boot from one, and each writes to a layer of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, snapshot: Snapshot) -> SnapshotInfo:
        """What is known of a snapshot. NoSuchSnapshot, with near misses as hint."""
        store = self._session.store
        return snapshot_info(store, store.index.find(slug_of(snapshot, "snapshot")))

    async def list(self) -> tuple[SnapshotInfo, ...]:
        """Every snapshot, newest first."""
        store = self._session.store
        return tuple(snapshot_info(store, record) for record in store.index.snapshots())

    async def delete(self, snapshot: Snapshot) -> None:
        """Forget a snapshot. Sandboxes that run on it, and volumes made from it, go on; its layers go with
        the gc after the last of them. NoSuchSnapshot."""
        index = self._session.store.index
        index.remove_snapshot(index.find(slug_of(snapshot, "snapshot")).slug)
