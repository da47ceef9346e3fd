"""The closure of a base against what mmdebstrap really installs."""

from __future__ import annotations

import asyncio
import subprocess
import tarfile
from pathlib import Path

import pytest

from sandboxfile.inputs.archive import Archives
from sandboxfile.inputs.bootstrap_set import solve_base
from sandboxfile.inputs.control import fields, stanzas
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.environment import default_mirrors
from sandboxfile.inputs.origins import base_suites, origins_of
from sandboxfile.inputs.settings import Settings
from sandboxfile.spec.model import DebianRequest, Sandboxfile
from sandboxfile.store.store import Store

pytestmark = [pytest.mark.host, pytest.mark.network]


def test_the_locked_base_is_exactly_a_minbase(
    store: Store, downloader: Downloader, settings: Settings, tmp_path: Path
) -> None:
    suite = "trixie"
    request = DebianRequest(suite)
    defaults = default_mirrors(suite, store.indexes)
    wanted = base_suites(request, defaults=defaults, settings=settings, architecture="amd64")
    assert [w.suite for w in wanted] == [suite, f"{suite}-updates", f"{suite}-security"]

    async def resolve() -> tuple[set[str], list[str]]:
        suites = await Archives(store.indexes, downloader, store.suites).fetch(wanted)
        base = await solve_base(
            suites, request=f"debian:{suite}", suite=suite, components=("main",), architecture="amd64"
        )
        assert base.epoch == max(each.archive.date for each in suites)
        # Every row can be fetched, and is what the index says it is.
        origins = origins_of(Sandboxfile("t", request), base.archives, defaults=defaults, settings=settings)
        smallest = sorted(base.packages, key=lambda row: row.size)[:3]
        await downloader.fetch([origins.deb(row) for row in smallest])
        return {f"{r.name} {r.version} {r.arch}" for r in base.packages}, [r.sha256 for r in smallest]

    locked, fetched = asyncio.run(resolve())
    assert all(store.blobs.has(sha256) for sha256 in fetched)
    made = tmp_path / "base.tar"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", suite, str(made)], capture_output=True, check=True
    )
    with tarfile.open(made) as archive:
        status = archive.extractfile("./var/lib/dpkg/status")
        assert status is not None
        stanzas_there = [fields(text) for text in stanzas(status.read().decode())]
    assert locked == {f"{s['Package']} {s['Version']} {s['Architecture']}" for s in stanzas_there}
