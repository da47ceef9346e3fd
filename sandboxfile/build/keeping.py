"""Looking after a store with the help of its engine, which alone may read or delete what layers hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sandboxfile.build.workshop import Parts
from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.engine.base import Capability
from sandboxfile.store import consistency
from sandboxfile.store.consistency import Checked, Problem
from sandboxfile.store.sweep import trash_entries

EmptyTrash = Callable[[Sequence[Path]], Awaitable[None]]
"""Deletes what was taken out of the store."""


async def check_store(
    parts: Parts, empty_trash: EmptyTrash, *, full: bool = False, repair: bool = False
) -> Checked:
    """Whether a store is as it should be; with `full`, every byte of it is read. With `repair`, what can be
    put right is, and the problems that are told are those that could not."""
    present = await _elsewhere(parts)
    found = consistency.check(parts.store, full=full, present=present)
    if full:
        found = replace(found, problems=(*found.problems, *await _wrong_contents(parts, found)))
    if not repair:
        return found
    repaired = consistency.repair(parts.store, found.problems)
    layers = [LayerKey(Digest(problem.name)) for problem in repaired if problem.kind == "layer"]
    await parts.engine.remove(layers)
    if repaired:
        await empty_trash(trash_entries(parts.store))
        after = consistency.check(parts.store, present=await _elsewhere(parts))
        found = consistency.after_repair(found, after, repaired)
    return found


async def _elsewhere(parts: Parts) -> frozenset[LayerKey] | None:
    """The layers of an engine that keeps them elsewhere, None for one that keeps them in the store."""
    if parts.layers_in_store:
        return None
    return await parts.engine.have(tuple(parts.store.index.layers()))


async def _wrong_contents(parts: Parts, found: Checked) -> list[Problem]:
    if Capability.DIFF_ID not in parts.engine.capabilities:
        return []
    damaged = {problem.name for problem in found.problems}
    wrong = []
    for key, record in parts.store.index.layers().items():
        if record.diff_id is not None and key not in damaged:
            problem = consistency.wrong_content(record, await parts.engine.measure(key))
            if problem is not None:
                wrong.append(problem)
    return wrong
