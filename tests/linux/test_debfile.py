"""Packages are read as they are written, and what is no package is told as such."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile

import pytest
from deb_maker import TIME, Package, ar, directory, entry, link, symlink, tar, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxfile.inputs.debfile import Deb, DebError, Entry

LONG = "./usr/share/" + "long-name/" * 40 + "file"
CONTENT = [
    *tree("/usr/share/one/file"),
    entry("./usr/share/one/big", bytes(range(256)) * 9000, mode=0o4755, owner=("mail", 8, "", 43)),
    entry(LONG, b"long"),
    symlink("./usr/share/one/link", "../" * 60 + "elsewhere"),
    link("./usr/share/one/hard", "./usr/share/one/file"),
    entry("./usr/share/one/empty", b""),
]


def read(content: bytes) -> list[tuple[Entry, bytes]]:
    archive = Deb(io.BytesIO(content)).content()
    return [(each, b"".join(archive.pieces(each))) for each in archive.entries()]


def read_all(content: bytes) -> list[str]:
    """Everything that is read for a build, entries passed over without taking their bytes."""
    deb = Deb(io.BytesIO(content))
    return [*deb.control, *(str(each.path) for each in deb.content().entries())]


@pytest.mark.parametrize("compression", ["xz", "gz", ""])
def test_every_entry_is_read_with_its_bytes(compression: str) -> None:
    found = read(Package("one", CONTENT, compression=compression).bytes())
    assert [(e.path, e.kind, e.mode, e.target, data) for e, data in found] == [
        (
            b"/" + info.name.removeprefix("./").strip("/").encode(),
            {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "link"}.get(
                info.type, "file"
            ),
            info.mode,
            info.linkname.removeprefix(".").encode() if info.islnk() else info.linkname.encode(),
            data,
        )
        for info, data in CONTENT
    ]
    owners = {e.path: (e.user, e.uid, e.group, e.gid, e.time) for e, _ in found}
    assert owners[b"/usr/share/one/big"] == (b"mail", 8, b"", 43, TIME)


def test_control_files_are_read_with_their_modes() -> None:
    deb = Deb(io.BytesIO(Package("one", CONTENT, scripts={"postinst": "#!/bin/sh\n"}).bytes()))
    assert sorted(deb.control) == ["control", "md5sums", "postinst"]
    assert deb.control["postinst"].mode == 0o755
    assert deb.control["postinst"].time == TIME
    assert deb.control["control"].content.startswith(b"Package: one\n")


def test_entries_may_be_passed_over() -> None:
    assert len(read_all(Package("one", CONTENT).bytes())) == len(CONTENT) + 2


def test_streams_in_a_row_are_one() -> None:
    inner = tar(CONTENT, "")
    control = ("control.tar.gz", gzip.compress(tar([entry("./control", b"Package: x\n")], "")))
    data = lzma.compress(inner[:1000]) + lzma.compress(inner[1000:]) + bytes(8)
    assert len(read(ar(("debian-binary", b"2.0\n"), control, ("data.tar.xz", data)))) == len(CONTENT)


def damaged(change: str) -> bytes:
    good = Package("one", CONTENT).bytes()
    control = ("control.tar", tar([entry("./control", b"Package: x\n")], ""))
    version = ("debian-binary", b"2.0\n")
    inner = bytearray(tar(CONTENT, ""))
    if change == "checksum":
        inner[0] ^= 1
    elif change == "number":
        inner[100:108] = b"0009999\0"
    return {
        "empty": b"",
        "no archive": b"!<arch>?" + good[8:],
        "cut off": good[:-40],
        "cut in a header": good[:70],
        "another format": ar(("debian-binary", b"3.0\n"), control, ("data.tar", bytes(inner))),
        "out of order": ar(version, ("data.tar", bytes(inner)), control),
        "no content": ar(version, control),
        "unknown compression": ar(version, control, ("data.tar.bz2", b"x")),
        "no control file": ar(
            version, ("control.tar", tar([directory("./")], "")), ("data.tar", bytes(inner))
        ),
        "a directory in control": ar(
            version,
            ("control.tar", tar([directory("./"), directory("./x/")], "")),
            ("data.tar", bytes(inner)),
        ),
        "checksum": ar(version, control, ("data.tar", bytes(inner))),
        "number": ar(version, control, ("data.tar", bytes(inner))),
        "flipped at the end": good[:-12] + bytes([good[-12] ^ 1]) + good[-11:],
        "pax headers": ar(version, control, ("data.tar", _pax())),
    }[change]


def _pax() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info, _ = entry("./" + "x" * 300)
        archive.addfile(info)
    return file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        "empty", "no archive", "cut off", "cut in a header", "another format", "out of order", "no content",
        "unknown compression", "no control file", "a directory in control", "checksum", "number",
        "flipped at the end", "pax headers",
    ],
)  # fmt: skip
def test_what_is_no_package_is_told(change: str) -> None:
    with pytest.raises(DebError):
        read_all(damaged(change))


@pytest.mark.parametrize("name", ["../x", "./x/../y", "./x//y", "./x/./y", "./a\nb"])
def test_paths_that_could_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(DebError, match="it holds the path"):
        read_all(Package("one", [directory("./"), entry(name, b"")]).bytes())


PLAIN = Package("one", CONTENT, compression="").bytes()


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_no_damage_does_more_than_be_told(changes: list[tuple[int, int]], cut: bool) -> None:
    content = bytearray(PLAIN)
    for place, value in changes:
        content[place] = value
    try:
        read_all(bytes(content[: changes[0][0]]) if cut else bytes(content))
    except DebError:
        pass
