"""A second build is recognised by its inputs, and by nothing less."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from sandboxfile.api import AsyncClient
from sandboxfile.inputs import fingerprint as module
from sandboxfile.inputs.fingerprint import Fingerprint, fingerprint

LONG_AGO = 1_500_000_000


class Built:
    """A project built once by the memory engine, whose layers are in the store as far as names go."""

    def __init__(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "project"
        self.home = tmp_path / "home"
        (self.directory / "src").mkdir(parents=True)
        self.app = self.directory / "src" / "app.py"
        self.app.write_text("print(1)\n")
        (self.directory / "src" / "old.py").write_text("old\n")
        self.write("name: web\nbase: scratch\nfiles:\n  - {from: src, to: /src}\n  - {content: x, to: /x}\n")

    def write(self, text: str) -> None:
        (self.directory / "Sandboxfile").write_text(text)

    def build(self) -> str:
        async def work() -> str:
            async with AsyncClient(home=self.home, engine="memory") as client:
                built = await client.build(client.load(directory=self.directory))
                for key in client.snapshot(built.slug).layers:
                    place = client.store.layer_dir(key)  # type: ignore[arg-type]
                    place.mkdir(exist_ok=True)
                    (place / "layer.json").touch()
                return built.slug

        return asyncio.run(work())

    def unchanged(self) -> str | None:
        async def work() -> str | None:
            async with AsyncClient(home=self.home, engine="memory") as client:
                found = client.unchanged(directory=self.directory)
                return found.slug if found else None

        return asyncio.run(work())

    def settle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let everything count as touched long before it is looked at."""
        monkeypatch.setattr(module, "RACY_NS", -(10**18))


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return Built(tmp_path)


@pytest.mark.parametrize("settled", [True, False])
def test_a_build_of_the_same_inputs_is_recognised(
    built: Built, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settled:
        built.settle(monkeypatch)
    slug = built.build()
    assert built.unchanged() == slug
    assert built.unchanged() == slug


@pytest.mark.parametrize("settled", [True, False])
def test_content_of_the_same_size_and_time_of_modification_is_still_seen(
    built: Built, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settled:
        built.settle(monkeypatch)
    os.utime(built.app, (LONG_AGO, LONG_AGO))
    slug = built.build()
    assert built.unchanged() == slug
    with open(built.app, "r+") as file:
        file.write("print(2)\n")
    os.utime(built.app, (LONG_AGO, LONG_AGO))
    assert built.unchanged() is None
    assert built.build() != slug


def test_a_file_that_was_only_touched_is_looked_at_and_found_the_same(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    built.settle(monkeypatch)
    slug = built.build()
    built.app.touch()
    assert built.unchanged() == slug


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.app.chmod(0o755),
        lambda b: (b.directory / "src" / "new.py").touch(),
        lambda b: (b.directory / "src" / "old.py").unlink(),
        lambda b: (b.directory / "src" / "old.py").rename(b.directory / "src" / "older.py"),
        lambda b: (b.directory / ".sandboxfileignore").write_text("old.py\n"),
        lambda b: b.write((b.directory / "Sandboxfile").read_text().replace("content: x", "content: y")),
        lambda b: (b.home / "snapshots").joinpath(os.listdir(b.home / "snapshots")[0]).unlink(),
        lambda b: next((b.home / "layers").glob("*/layer.json")).unlink(),
    ],
    ids=["mode", "added", "removed", "renamed", "ignored", "inline", "no snapshot", "no layer"],
)
def test_every_other_change_is_seen(built: Built, change: object, monkeypatch: pytest.MonkeyPatch) -> None:
    built.settle(monkeypatch)
    slug = built.build()
    assert built.unchanged() == slug
    change(built)  # type: ignore[operator]
    assert built.unchanged() is None


def test_a_memo_that_was_cut_off_is_no_memo(built: Built) -> None:
    built.build()
    for path in (built.home / "memos").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert built.unchanged() is None


def test_a_fingerprint_of_files_touched_just_now_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    now = time.time_ns()
    found = fingerprint(str(tmp_path), [("", "a")])
    assert not found.is_settled(now)
    assert found.is_settled(now + 3 * 10**9)
    assert not Fingerprint(None, 0).is_settled(now)


def test_a_fingerprint_looks_below_a_linked_directory_and_at_the_link(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    link = tmp_path / "link"
    link.symlink_to("one")
    first = fingerprint(str(tmp_path), [("", "link")]).content
    assert fingerprint(str(tmp_path), [("", "link")]).content == first
    (tmp_path / "one" / "f").write_text("ONE")
    second = fingerprint(str(tmp_path), [("", "link")]).content
    assert second != first
    link.unlink()
    link.symlink_to("two")
    assert fingerprint(str(tmp_path), [("", "link")]).content not in (first, second)


def test_what_cannot_be_looked_at_gives_no_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(str(tmp_path), [("", "missing")]).content is None
