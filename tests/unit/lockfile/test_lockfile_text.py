"""The lock as text: what it looks like, what merges of it are, what damage to it says."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.pylock import Pylock

from sandboxfile.core.digest import Digest
from sandboxfile.errors import LockFormatError
from sandboxfile.spec.lock import (
    AptTransition,
    Archive,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    RemovedRow,
    WheelRow,
    history_digest,
)
from sandboxfile.spec.lockfile import dump, load, pylock
from sandboxfile.spec.staleness import after_merge, valid_prefix

SHA = "0123456789abcdef" * 4
DIGEST = Digest(f"sha256:{SHA}")
MAIN = Archive("debian", "trixie", ("main",), DIGEST, 1757068800)


def deb(name: str, version: str = "1.0-1", *, auto: bool = True, replaces: str | None = None) -> DebRow:
    path = f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb"
    because = "zlib1g-dev" if replaces else None
    return DebRow(name, version, "amd64", SHA, 1234, path, "debian", auto, replaces, because)


def wheel(name: str, version: str = "1.0") -> WheelRow:
    file = f"{name}-{version}-py3-none-any.whl"
    return WheelRow(name, version, file, SHA, 4321, f"https://index.example/{file}")


BASE = LockedBase(
    request="debian:trixie",
    kind="debian",
    architecture="amd64",
    epoch=1757068800,
    suite="trixie",
    components=("main",),
    archives=(MAIN,),
    packages=(deb("base-files"), deb("zlib1g")),
    diff_id=DIGEST,
)


def with_group(lock: Lockfile, apt: AptTransition | None, pip: PipTransition | None) -> Lockfile:
    group = Group(history_digest(lock.base, lock.groups), apt, pip)
    return replace(lock, groups=(*lock.groups, group))


def example() -> Lockfile:
    lock = Lockfile(
        BASE,
        apt_options={"recommends": "false"},
        pip_options={"index_url": "https://index.example/simple"},
        recipes={"web": str(DIGEST)},
        inputs={"constraints ä.txt": SHA},
    )
    lock = with_group(
        lock,
        AptTransition(
            ("jq", "zlib1g-dev"),
            (deb("jq", auto=False), deb("zlib1g", "1.1-1", replaces="1.0-1")),
            (RemovedRow("base-files", "1.0-1", "amd64", "jq"),),
            (MAIN,),
        ),
        PipTransition(("rich>=13",), "3.13.5", (wheel("rich"), wheel("pygments"))),
    )
    built = WheelRow(
        "docopt",
        "0.6.2",
        "docopt-0.6.2-py2.py3-none-any.whl",
        SHA,
        9,
        "https://index.example/docopt-0.6.2.tar.gz",
        True,
        SHA,
    )
    return with_group(lock, None, PipTransition(("docopt",), "3.13.5", (built,)))


def test_a_lock_reads_back_as_it_was_with_its_metadata() -> None:
    lock = example()
    read = load(dump(lock))
    assert read == lock
    assert read.base.diff_id == lock.base.diff_id
    assert [row.url for row in read.installed_wheels()] == [row.url for row in lock.installed_wheels()]


def test_line_ends_of_other_systems_are_read() -> None:
    assert load(dump(example()).replace("\n", "\r\n")) == example()


def test_the_text_depends_on_nothing_but_the_lock() -> None:
    lock = example()
    shuffled = replace(lock, inputs={"b": SHA, "a": SHA}, pip_options={})
    ordered = replace(lock, inputs={"a": SHA, "b": SHA}, pip_options={})
    assert dump(shuffled) == dump(ordered)
    assert dump(load(dump(lock))) == dump(lock)


def test_there_is_one_package_a_line() -> None:
    text = dump(example())
    for name in ("base-files", "jq", "rich", "pygments", "docopt"):
        rows = [line for line in text.splitlines() if re.match(rf"  ('|{{name = \"){name}\b.*{SHA}", line)]
        assert len(rows) == 1, name


def test_updating_a_package_changes_its_line_and_what_names_the_history() -> None:
    lock = example()
    group = lock.groups[-1]
    newer = replace(
        lock, groups=(lock.groups[0], replace(group, pip=replace(group.pip, rows=(wheel("docopt"),))))
    )
    before, after = dump(lock).splitlines(), dump(newer).splitlines()
    assert len(before) == len(after)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("rich",), ("flask",)),
        (("rich",), ("rich", "flask")),
        (("a1", "a2", "a3", "a4", "a5", "x"), ("a1", "a2", "a3", "a4", "a5", "y")),
        (("x", "a1", "a2", "a3", "a4", "a5", "z"), ("a1", "a2", "a3", "a4", "a5", "y")),
    ],
)
@pytest.mark.parametrize("base_groups", [0, 2])
@pytest.mark.parametrize("kind", ["apt", "pip", "both"])
def test_a_merge_that_keeps_both_sides_can_be_read(
    tmp_path: Path, ours: tuple[str, ...], theirs: tuple[str, ...], base_groups: int, kind: str
) -> None:
    lock = Lockfile(BASE, example().groups[:base_groups])

    def appended(names: tuple[str, ...]) -> Lockfile:
        apt = AptTransition(names, tuple(map(deb, names)), (), (MAIN,))
        pip = PipTransition(names, "3.13.5", tuple(map(wheel, names)))
        return with_group(lock, apt if kind != "pip" else None, pip if kind != "apt" else None)

    texts = {"base": lock, "ours": appended(ours), "theirs": appended(theirs)}
    for name, each in texts.items():
        (tmp_path / name).write_text(dump(each))
    merged = subprocess.run(
        ["git", "merge-file", "-p", "--union", "ours", "base", "theirs"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    read = load(merged)
    assert read.groups == (*lock.groups, texts["ours"].groups[-1], texts["theirs"].groups[-1])
    assert valid_prefix(read) == base_groups + 1
    assert f"group {base_groups + 2} of {base_groups + 2}" in (after_merge(read) or "")

    conflicting = subprocess.run(
        ["git", "merge-file", "-p", "ours", "base", "theirs"],
        cwd=tmp_path, check=False, capture_output=True, text=True,
    ).stdout  # fmt: skip
    with pytest.raises(LockFormatError, match="unresolved merge conflict") as caught:
        load(conflicting)
    assert caught.value.span is not None
    assert caught.value.span.source.line(caught.value.span.line).startswith("<<<<<<<")
    kept = "\n".join(line for line in conflicting.splitlines() if not re.match(r"[<=>]{7}", line))
    assert load(kept) == read


DAMAGE = [
    ("version = 1", "version = true", "does not say which version"),
    ("version = 1\n", "", "does not say which version"),
    ("version = 1", "version = 1\nsurprise = 2", "no key `surprise`"),
    ('kind = "debian"', 'kind = "ubuntu"', "not a kind of base"),
    ('request = "debian:trixie"', "request = 3", "`request` must be"),
    ('request = "debian:trixie"', 'request = "debian\\u001b[2J"', "printable"),
    ('suite = "trixie"\n', "", "needs `suite`"),
    ('suite = "trixie"', 'suite = "../etc"', "cannot be a `suite`"),
    ("epoch = 1757068800", "epoch = -1", "whole number"),
    ("epoch = 1757068800", "epoch = 1e9", "whole number"),
    ("epoch = 1757068800", "epoch = 99999999999999999999", "whole number"),
    (f'diff-id = "{DIGEST}"', 'diff-id = "sha256:12"', "not a digest"),
    ("pool/main/j/jq/jq_1.0-1", "pool/../../jq_1.0-1", "plain path"),
    ("pool/main/j/jq/jq_1.0-1", "/etc/jq_1.0-1", "plain path"),
    ("pool/main/j/jq/jq_1.0-1", "pool//jq_1.0-1", "plain path"),
    ("'jq 1.0-1 amd64", "'jq amd64", "not a package row"),
    ("'jq 1.0-1 amd64", "'--jq 1.0-1 amd64", "not a package row"),
    (f"'jq 1.0-1 amd64 {SHA} 1234", f"'jq 1.0-1 amd64 {SHA[:-1]}g 1234", "not a package row"),
    (f"'jq 1.0-1 amd64 {SHA} 1234", f"'jq 1.0-1 amd64 {SHA} -1234", "not a package row"),
    (f"'jq 1.0-1 amd64 {SHA} 1234", "7, 'jq", "not a package row"),
    ("zlib1g_1.1-1_amd64.deb debian", "zlib1g_1.1-1_amd64.deb debian extra", "not a package row"),
    ("'base-files 1.0-1 amd64 because=jq'", "'base-files'", "not a removed package"),
    ("debian trixie main sha256", "debian trixie/../.. main sha256", "not an archive"),
    ("rich-1.0-py3-none-any.whl\", url", "../rich-1.0-py3-none-any.whl\", url", "cannot be a `name`"),
    ("rich-1.0-py3-none-any.whl\", url", "/rich-1.0-py3-none-any.whl\", url", "cannot be a `name`"),
    ("rich-1.0-py3-none-any.whl\", url", "rich\\u0000.whl\", url", "printable"),
    ("https://index.example/rich", "ftp://index.example/rich", "cannot be a `url`"),
    ("https://index.example/rich", "https://me:secret@index.example/rich", "user name or password"),
    ("size = 4321", "size = -4321", "whole number"),
    ("size = 4321, ", "", "`size` is missing"),
    (f'hashes = {{sha256 = "{SHA}"}}', 'hashes = {sha256 = "00"}', "cannot be a `sha256`"),
    (f'hashes = {{sha256 = "{SHA}"}}', 'hashes = {md5 = "00"}', "no key `md5`"),
    ('{name = "pygments"', '{name = "Rich"', "rich is listed twice"),
    ("'zlib1g 1.1-1 amd64", "'jq 1.1-1 amd64", "jq:amd64 is listed twice"),
    ('"zlib1g-dev",', '"jq",', "jq is listed twice"),
    ('"zlib1g-dev",', '"",', "printable text"),
    ("after = ", 'after = "x"\nbefore = ', "no key `before`"),
    ("apt.requests = [", "apt.wishes = [", "no key `wishes`"),
    ('recommends = "false"', "recommends = false", "printable text"),
    (f'web = "{DIGEST}"', 'web = "latest"', "not a sha256"),
    ("[base]", "[base]]", "not valid TOML"),
    ("[base]", "[base", "not valid TOML"),
    ("[[group]]", "[group]", "not valid TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "put", "message"), DAMAGE)
def test_damage_is_refused_with_the_line_it_is_on(found: str, put: str, message: str) -> None:
    text = dump(example())
    assert found in text
    at = text.index(found)
    with pytest.raises(LockFormatError, match=re.escape(message)) as caught:
        load(text[:at] + put + text[at + len(found) :])
    span = caught.value.span
    assert span is not None
    assert span.source.name == "sandboxfile.lock"
    # What is missing is shown by what it is missing from.
    table = caught.value.message.endswith("is missing") or put in ("", "[group]") or "needs" in message
    if not table:
        assert abs(span.line - (text.count("\n", 0, at) + 1)) <= 1
    assert "\x1b" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_lock_of_a_newer_version_says_so_before_anything_else() -> None:
    with pytest.raises(LockFormatError, match="newer version") as caught:
        load('version = 2\n[[layers]]\nx = "y"\n')
    assert caught.value.hint == "upgrade sandboxfile"
    assert caught.value.span is not None
    assert caught.value.span.line == 1


@pytest.mark.parametrize(
    "text", ["", "version = 1", "version = 1\nbase = 3", "version = 1\n[base]", "a = " + "[" * 9999]
)
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(LockFormatError) as caught:
        load(text)
    assert caught.value.span is not None


def test_the_named_line_is_that_of_the_row() -> None:
    text = dump(example())
    at = text.index("'zlib1g 1.1-1")
    with pytest.raises(LockFormatError) as caught:
        load(text[:at] + "'zlib1g?" + text[at + 7 :])
    span = caught.value.span
    assert span is not None
    assert span.source.line(span.line).strip().startswith("'zlib1g?")
    assert span.source.line(span.line)[span.column - 1 :].startswith("'zlib1g?")


def test_what_cannot_be_read_back_is_not_written() -> None:
    bad = replace(BASE, packages=(replace(deb("x1"), path="pool/../../etc/passwd"),))
    with pytest.raises(LockFormatError, match="plain path"):
        dump(Lockfile(bad))
    secret = replace(wheel("rich"), url="https://me:hunter2@index.example/rich.whl")
    with pytest.raises(LockFormatError, match="user name or password") as caught:
        dump(with_group(Lockfile(BASE), None, PipTransition(("rich",), "3.13.5", (secret,))))
    assert "hunter2" not in caught.value.message


def test_packaging_reads_the_pylock_document() -> None:
    document = Pylock.from_dict(tomllib.loads(pylock(example())))
    assert [package.name for package in document.packages] == ["docopt", "pygments", "rich"]
    docopt, pygments, _ = document.packages
    assert docopt.sdist is not None
    assert docopt.sdist.hashes == {"sha256": SHA}
    assert pygments.wheels is not None
    assert pygments.wheels[0].size == 4321
    assert str(document.requires_python) == "==3.13.*"


def test_an_empty_lock_and_wheels_from_directories_make_pylock_documents() -> None:
    assert list(Pylock.from_dict(tomllib.loads(pylock(Lockfile(BASE)))).packages) == []
    local = replace(wheel("Foo.Bar"), filename="foo_bar-1.0-py3-none-any.whl", url="")
    lock = with_group(Lockfile(BASE), None, PipTransition(("foo-bar",), "", (local,)))
    (package,) = Pylock.from_dict(tomllib.loads(pylock(lock))).packages
    assert package.name == "foo-bar"
    assert package.wheels is not None
    assert package.wheels[0].path == "foo_bar-1.0-py3-none-any.whl"
