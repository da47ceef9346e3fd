"""Downloads wait for the network: all of a plan's begin at once, however few processors there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandboxfile.build import builder as builder_module
from sandboxfile.build.builder import Builder, Outcomes
from sandboxfile.build.layers import Ingredients
from sandboxfile.core.digest import Digest
from sandboxfile.core.event import NullReporter
from sandboxfile.core.layer import LayerKey
from sandboxfile.engines.memory.engine import MemoryEngine
from sandboxfile.plan.model import PlannedFetch
from sandboxfile.plan.planner import plan
from sandboxfile.plan.reconcile import reconcile
from sandboxfile.spec.lock import Group, LockedBase, Lockfile, PipTransition, WheelRow
from sandboxfile.spec.model import Sandboxfile, ScratchRequest
from sandboxfile.store.store import Store

GROUPS = 7


class AllBeganError(Exception):
    """Every download of the plan has begun."""


def test_all_downloads_begin_before_the_first_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_module.os, "cpu_count", lambda: 1)
    rows = [
        WheelRow(f"d{n}", "1", f"d{n}-1-py3-none-any.whl", f"{n:064x}", 1, url=f"https://index.example/{n}")
        for n in range(GROUPS)
    ]
    groups = tuple(Group(Digest(""), None, PipTransition((row.name,), "3.13.5", (row,))) for row in rows)
    lock = Lockfile(LockedBase("scratch", "scratch", "amd64", 1), groups)
    planned = plan(Sandboxfile("x", ScratchRequest()), lock, ())
    reconciled = reconcile(planned, have=(), blobs=(), passed=())
    began: list[str] = []

    async def fetch(each: PlannedFetch) -> None:
        began.append(each.name)
        if len(began) == GROUPS:
            raise AllBeganError
        await asyncio.Event().wait()

    async def present(keys: Sequence[LayerKey]) -> frozenset[LayerKey]:
        return frozenset()

    async def build(store: Store) -> None:
        engine = MemoryEngine()
        try:
            made = Builder(
                engine=engine,
                store=store,
                reporter=NullReporter(),
                fetch=fetch,
                present=present,
                ingredients=Ingredients(),
                on_failed=lambda failed: None,
            )
            await made.build_layers(reconciled, Outcomes())
        finally:
            await engine.close()

    with Store.open(tmp_path / "store") as store, pytest.raises(AllBeganError):
        asyncio.run(build(store))
    assert began == [fetch.name for fetch in planned.fetches]
