"""Attempts on the client's own reading and writing of a sandbox's files, by links and kinds of files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from escape_arena import Arena, execute

from sandboxfile.engine.base import Sandbox
from sandboxfile.engine.files import SandboxFiles
from sandboxfile.errors import SandboxfileError

pytestmark = pytest.mark.host
WAYS: dict[str, Callable[[SandboxFiles, str], Awaitable[object]]] = {
    "read": lambda fs, path: fs.read_file(path),
    "write": lambda fs, path: fs.write_file(path, b"changed\n"),
    "copy": lambda fs, path: fs.copy_file(path, "/tmp/copy"),
    "chmod": lambda fs, path: fs.chmod(path, 0o777),
    "truncate": lambda fs, path: fs.truncate(path),
    "list": lambda fs, path: fs.read_dir(f"{path}/.."),
}
LINKS = {
    "an absolute link": "{outside}",
    "dots": "../../../../../../../../../..{outside}",
    "the root of a process": "/proc/1/root{outside}",
    "a descriptor": "/proc/self/fd/5/../../../..{outside}",
    "the directory of a process": "/proc/self/cwd/../../../..{outside}",
}


@pytest.mark.parametrize("link", LINKS)
def test_no_link_leads_the_client_out(arena: Arena, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "file"
    outside.write_text("of the host\n")
    outside.chmod(0o666)
    target = LINKS[link].format(outside=outside)

    async def body(sandbox: Sandbox) -> list[object]:
        await execute(sandbox, "sh", "-c", f"ln -s '{target}' /tmp/link; ln -s /proc/self/root /tmp/root")
        got = []
        for way in WAYS.values():
            for path in ("/tmp/link", target, f"/tmp/root{outside}", f"/../../..{outside}"):
                try:
                    got.append(await way(sandbox.fs, path))
                except (OSError, SandboxfileError):
                    continue
        return got

    got = arena.sandboxed(body)
    # A file of that name may be made inside of the sandbox; it is never this one.
    assert b"of the host\n" not in got
    assert outside.read_text() == "of the host\n"
    assert outside.stat().st_mode & 0o7777 == 0o666


@pytest.mark.parametrize("make", ["mkfifo /tmp/odd", "ln -s /dev/zero /tmp/odd", "ln -s /dev/tty /tmp/odd"])
def test_what_is_no_regular_file_is_refused_at_once(arena: Arena, make: str) -> None:
    async def body(sandbox: Sandbox) -> None:
        await execute(sandbox, "sh", "-c", make)
        with pytest.raises((OSError, SandboxfileError)):
            await sandbox.fs.read_file("/tmp/odd")
        with pytest.raises((OSError, SandboxfileError)):
            await sandbox.fs.copy_file("/tmp/odd", "/tmp/copy")

    arena.sandboxed(body)


def test_the_same_link_leads_a_careless_client_out(arena: Arena, tmp_path: Path) -> None:
    """The control: a client that joins paths reads the file of the host."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(arena.facts["sentinel"])
    assert (root / "link").read_text() == "of the host\n"
