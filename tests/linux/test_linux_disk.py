"""A disk that is full is one clear error, and nothing half-written."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxfile.core.layer import FilesLayer, TreeEntry, layer_key
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import StoreError

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("filled", [0, 290_000])
def test_a_full_disk_is_said_to_be_full(small_disk: Path, tmp_path: Path, filled: int) -> None:
    origin = tmp_path / "big"
    origin.write_bytes(b"x" * 400_000)
    definition = FilesLayer((TreeEntry("/big", "file", 0o644, origin=str(origin)),), 0)
    home = small_disk / "home"

    async def body() -> None:
        engine = LinuxEngine(home)
        try:
            workspace = await engine.prepare(())
            (small_disk / "filler").write_bytes(b"x" * filled)
            await workspace.place(definition.entries)
            await workspace.commit(definition, layer_key(definition))
        finally:
            await engine.close()

    with pytest.raises(StoreError, match="disk is full") as caught:
        asyncio.run(body())
    assert "cache gc" in str(caught.value.hint)
    assert list((home / "layers").iterdir()) == []
    assert list((home / "workspaces").iterdir()) == []
