"""Root filesystem tars, honest and other."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxfile.core.layer import RootfsBase
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import BuildError

pytestmark = pytest.mark.host


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def unpacked(engine: LinuxEngine, tar: Path, look: Callable[[Any], Any]) -> Any:
    async def body() -> Any:
        try:
            workspace = await engine.unpack(RootfsBase("0" * 64, 0), tar, lambda stream, data: None)
            return await look(workspace)
        finally:
            await engine.close()

    return asyncio.run(body())


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_unpacked_whatever_its_compression(
    empty_engine: LinuxEngine, tmp_path: Path, mode: str
) -> None:
    members = [
        (member("./", type=tarfile.DIRTYPE, mode=0o755), b""),
        (member("./usr/bin", type=tarfile.DIRTYPE, mode=0o755), b""),
        (member("bin", type=tarfile.SYMTYPE, linkname="usr/bin"), b""),
        (member("bin/tool", mode=0o755, uid=5, gid=6), b"content"),
        (member("hard", type=tarfile.LNKTYPE, linkname="usr/bin/tool"), b""),
        (member("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    ]
    tar = archive(tmp_path / "rootfs", members, mode)

    async def look(workspace: Any) -> tuple[bytes, bytes]:
        return await workspace.read("/usr/bin/tool"), await workspace.read("/hard")

    assert unpacked(empty_engine, tar, look) == (b"content", b"content")


def test_nothing_leads_out_of_the_root(empty_engine: LinuxEngine, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    members = [
        (member("up", type=tarfile.SYMTYPE, linkname="../../../../../../../.."), b""),
        (member("up/planted"), b"2"),
        (member("away", type=tarfile.SYMTYPE, linkname=str(outside)), b""),
    ]
    tar = archive(tmp_path / "rootfs.tar.gz", members)

    async def look(workspace: Any) -> bytes:
        return await workspace.read("/planted")

    assert unpacked(empty_engine, tar, look) == b"2"
    archive(tar, [*members, (member("away/file"), b"1")])
    with pytest.raises(BuildError, match="points nowhere"):
        unpacked(empty_engine, tar, look)
    assert list(outside.iterdir()) == []
    assert not Path("/planted").exists()


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (member("a/../../b"), r"\.\."),
        (member("x", uid=70000), "owner"),
        (member("h", type=tarfile.LNKTYPE, linkname="../nowhere/x"), "not there"),
    ],
)
def test_what_cannot_be_right_is_refused(
    empty_engine: LinuxEngine, tmp_path: Path, info: tarfile.TarInfo, words: str
) -> None:
    tar = archive(tmp_path / "rootfs.tar.gz", [(info, b"")])
    with pytest.raises(BuildError, match=words):
        unpacked(empty_engine, tar, lambda workspace: workspace.read("/x"))


def test_what_is_no_tar_is_said_to_be_none(empty_engine: LinuxEngine, tmp_path: Path) -> None:
    file = tmp_path / "rootfs.tar"
    file.write_bytes(b"nonsense" * 1000)
    with pytest.raises(BuildError, match="no readable tar"):
        unpacked(empty_engine, file, lambda workspace: workspace.read("/x"))
