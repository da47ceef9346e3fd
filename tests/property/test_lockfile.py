"""Any lock reads back as it was; any text is a lock or is refused; a history is checked as declared."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st

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
from sandboxfile.spec.lockfile import dump, load
from sandboxfile.spec.staleness import valid_prefix

hexes = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
digests = hexes.map(lambda value: Digest(f"sha256:{value}"))
numbers = st.integers(0, 10**12)
lines = st.text(min_size=1, max_size=30).filter(str.isprintable)
names = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,12}", fullmatch=True)
versions = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,12}", fullmatch=True)
words = st.sampled_from(["main", "contrib", "non-free-firmware", "a/b"])
arches = st.sampled_from(["amd64", "all", "arm64"])
paths = st.lists(st.from_regex(r"[A-Za-z0-9+_~:%-][A-Za-z0-9+._~:%-]{0,9}", fullmatch=True), min_size=1).map(
    "/".join
)
maybe = st.none() | versions
texts = st.dictionaries(
    lines, st.text(max_size=40).filter(lambda t: t.replace("\n", "").isprintable()), max_size=3
)
inputs = st.dictionaries(lines, hexes | digests, max_size=3)

debs = st.builds(
    DebRow, names, versions, arches, hexes, numbers, paths, names, st.booleans(), maybe, st.none() | names
)
removed = st.builds(RemovedRow, names, versions, arches, st.none() | names)
archives = st.builds(Archive, names, names, st.lists(words, max_size=2).map(tuple), digests, numbers)


@st.composite
def wheels(draw: st.DrawFn) -> WheelRow:
    name = draw(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True))
    version = draw(st.from_regex(r"([0-9]!)?[0-9][0-9.]{0,6}(\+[a-z]{1,3})?", fullmatch=True))
    tags = draw(st.sampled_from(["py3-none-any", "1-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64"]))
    url = draw(
        st.sampled_from(
            ["", "https://index.example/a b".replace(" ", "%20"), "file:///wheels/x.whl", "/wheels/x y.whl"]
        )
    )
    built = draw(st.booleans())
    sdist = draw(hexes) if built else ""
    file = f"{name.replace('-', '_')}-{version}-{tags}.whl"
    return WheelRow(name, version, file, draw(hexes), draw(numbers), url, built, sdist)


def rows(of: st.SearchStrategy[object], key: object) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=4, unique_by=key).map(tuple)  # type: ignore[call-overload]


requests = st.lists(lines, max_size=4, unique=True).map(tuple)
apts = st.builds(
    AptTransition,
    requests,
    rows(debs, lambda row: (row.name, row.arch)),
    rows(removed, lambda row: (row.name, row.arch)),
    st.lists(archives, max_size=2).map(tuple),
)
pips = st.builds(
    PipTransition,
    requests,
    st.sampled_from(["", "3.13.5", "3.14.0rc1"]),
    rows(wheels(), lambda row: row.name.lower().translate(str.maketrans("._", "--")).replace("--", "-")),
)
groups = st.one_of(
    st.builds(Group, digests, apts, st.none()),
    st.builds(Group, digests, st.none(), pips),
    st.builds(Group, digests, apts, pips),
)
bases = st.one_of(
    st.builds(
        LockedBase,
        lines,
        st.just("debian"),
        arches,
        numbers,
        suite=names,
        components=st.lists(words, max_size=2).map(tuple),
        archives=st.lists(archives, max_size=2).map(tuple),
        packages=rows(debs, lambda row: (row.name, row.arch)),
        diff_id=st.none() | digests,
    ),
    st.builds(LockedBase, lines, st.just("rootfs"), arches, numbers, rootfs=hexes),
    st.builds(
        LockedBase,
        lines,
        st.just("snapshot"),
        arches,
        numbers,
        snapshot=st.just("env-0123456789abcdef"),
        layers=st.lists(digests, max_size=3).map(tuple),
    ),
    st.builds(LockedBase, lines, st.just("scratch"), arches, numbers),
)
locks = st.builds(Lockfile, bases, st.lists(groups, max_size=3).map(tuple), texts, texts, inputs, inputs)


def _distinct(lock: Lockfile) -> bool:
    """Whether no group names one distribution in two spellings; the strategy only nearly sees to it."""
    import re

    for group in lock.groups:
        spelled = [re.sub(r"[-_.]+", "-", row.name).lower() for row in (group.pip.rows if group.pip else ())]
        if len(spelled) != len(set(spelled)):
            return False
    return True


@settings(deadline=None)
@given(locks.filter(_distinct))
def test_any_lock_reads_back_as_it_was(lock: Lockfile) -> None:
    text = dump(lock)
    read = load(text)
    assert read == lock
    assert read.base.diff_id == lock.base.diff_id
    assert [row.url for row in read.installed_wheels()] == [row.url for row in lock.installed_wheels()]
    assert dump(read) == text


@settings(deadline=None)
@given(bases, st.lists(groups, max_size=4), st.integers(0, 4))
def test_the_valid_prefix_is_that_of_the_declared_digest(
    base: LockedBase, drawn: list[Group], right: int
) -> None:
    from dataclasses import replace

    made: tuple[Group, ...] = ()
    for number, group in enumerate(drawn):
        made += (replace(group, after=history_digest(base, made)) if number < right else group,)
    expected = next(
        (n for n, group in enumerate(made) if group.after != history_digest(base, made[:n])), len(made)
    )
    assert valid_prefix(Lockfile(base, made)) == expected


SEED = dump(
    Lockfile(
        LockedBase("debian:trixie", "debian", "amd64", 5, suite="trixie"),
        (
            Group(
                Digest("sha256:" + "0" * 64),
                AptTransition(("jq",), (DebRow("jq", "1", "amd64", "1" * 64, 3, "pool/jq.deb", "debian"),)),
                PipTransition(
                    ("rich",),
                    "3.13.5",
                    (
                        WheelRow(
                            "rich", "1", "rich-1-py3-none-any.whl", "2" * 64, 4, "https://index.example/r"
                        ),
                    ),
                ),
            ),
        ),
        inputs={"a": "3" * 64},
    )
)


def _load_or_refuse(text: str) -> None:
    refusal = None
    try:
        load(text)
    except LockFormatError as error:
        refusal = error
    if refusal is not None:
        assert refusal.span is not None
        assert refusal.message
        assert refusal.message.isprintable()


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    _load_or_refuse(text)
    _load_or_refuse("version = 1\n" + text)


@settings(deadline=None, max_examples=500)
@given(
    st.integers(0, len(SEED)),
    st.integers(0, 40),
    st.one_of(
        st.text(max_size=8), st.text(alphabet=string.punctuation + "019az\n", max_size=8), st.just("\x00")
    ),
)
def test_a_damaged_lock_is_read_or_refused(at: int, cut: int, put: str) -> None:
    _load_or_refuse(SEED[:at] + put + SEED[at + cut :])


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([line.split(" = ")[0] for line in SEED.splitlines() if " = " in line]), json_like)
def test_values_of_another_type_are_refused(key: str, value: object) -> None:
    import json

    put = json.dumps(value).replace("null", "1979-05-27")
    lines = SEED.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"{key} = "))
    end = at + 1
    if lines[at].endswith("["):
        end = lines.index("]", at) + 1
    _load_or_refuse("\n".join([*lines[:at], f"{key} = {put}", *lines[end:]]))
