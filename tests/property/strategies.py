"""Sandboxfiles, locks and trees for property tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from sandboxfile.core.layer import TreeEntry
from sandboxfile.plan.model import Plan
from sandboxfile.plan.planner import plan
from sandboxfile.spec.lock import (
    AptTransition,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    WheelRow,
    history_digest,
)
from sandboxfile.spec.model import (
    Check,
    DebianRequest,
    FileRequest,
    Network,
    RunStep,
    Sandboxfile,
    Start,
)

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=6)
NETWORKS = st.sampled_from([False, True, ("a.example",)])
ENVIRONMENTS = st.dictionaries(WORDS.map(str.upper), TEXT, max_size=3)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def deb(name: str, version: str = "1", *, auto: bool = False, replaces: str | None = None) -> DebRow:
    digest = sha(f"{name} {version}")
    path = f"pool/main/{name}_{version}_amd64.deb"
    return DebRow(name, version, "amd64", digest, len(name) * 1000, path, "debian", auto, replaces)


def wheel(name: str, version: str = "1.0") -> WheelRow:
    filename = f"{name}-{version}-py3-none-any.whl"
    return WheelRow(name, version, filename, sha(filename), len(name) * 2000)


def base(*packages: str) -> LockedBase:
    rows = tuple(deb(name) for name in packages or ("apt", "dpkg"))
    return LockedBase(
        request="debian:trixie",
        kind="debian",
        architecture="amd64",
        epoch=1_700_000_000,
        suite="trixie",
        components=("main",),
        packages=rows,
    )


def lock_of(*groups: tuple[tuple[str, ...], tuple[str, ...]], on: LockedBase | None = None) -> Lockfile:
    """A lock whose groups are (apt names, pip names)."""
    locked = on or base()
    made: tuple[Group, ...] = ()
    for apt, pip in groups:
        transition = AptTransition(apt, tuple(deb(name) for name in apt)) if apt else None
        wheels = PipTransition(pip, "3.13.5", tuple(wheel(name) for name in pip)) if pip else None
        made = (*made, Group(history_digest(locked, made), transition, wheels))
    return Lockfile(locked, made)


def file_tree(to: str, content: str, owner: str = "0:0") -> tuple[TreeEntry, ...]:
    return (TreeEntry(to, "file", 0o644, owner, sha(content), size=len(content.encode())),)


@dataclass(frozen=True)
class Case:
    """A Sandboxfile and what belongs to it."""

    spec: Sandboxfile
    lock: Lockfile
    trees: tuple[tuple[TreeEntry, ...], ...] = ()

    def plan(self) -> Plan:
        return plan(self.spec, self.lock, self.trees)

    def with_file(self, to: str, content: str, owner: str = "0:0") -> Case:
        request = FileRequest(to, to.rpartition("/")[2], owner=owner)
        spec = replace(self.spec, files=(*self.spec.files, request))
        return replace(self, spec=spec, trees=(*self.trees, file_tree(to, content, owner)))

    def with_step(self, command: str, at: int | None = None) -> Case:
        steps = list(self.spec.run)
        steps.insert(len(steps) if at is None else at, RunStep(command))
        return replace(self, spec=replace(self.spec, run=tuple(steps)))

    def with_check(self, command: str) -> Case:
        return replace(self, spec=replace(self.spec, verify=(*self.spec.verify, Check(command))))

    def with_group(self, apt: tuple[str, ...] = (), pip: tuple[str, ...] = ()) -> Case:
        groups = [
            (
                tuple(r.name for r in g.apt.rows) if g.apt else (),
                tuple(r.name for r in g.pip.rows) if g.pip else (),
            )
            for g in self.lock.groups
        ]
        return replace(self, lock=lock_of(*groups, (apt, pip), on=self.lock.base))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    names = iter(draw(st.lists(WORDS, min_size=12, max_size=12, unique=True)))
    groups = []
    for _ in range(draw(st.integers(0, 3))):
        apt = tuple(f"deb-{next(names)}" for _ in range(draw(st.integers(0, 2))))
        pip = tuple(f"whl_{next(names)}" for _ in range(draw(st.integers(0, 2))))
        groups.append((apt, pip))
    spec = Sandboxfile(
        name=draw(WORDS),
        base=DebianRequest("trixie"),
        env=draw(ENVIRONMENTS),
        workdir=draw(st.sampled_from(["/", "/app"])),
        run=tuple(
            RunStep(
                command, env=draw(ENVIRONMENTS), network=draw(st.sampled_from([False, True, ("a.example",)]))
            )
            for command in draw(st.lists(TEXT, max_size=3))
        ),
        verify=tuple(Check(command) for command in draw(st.lists(TEXT, max_size=3))),
        start=draw(st.none() | st.builds(Start, TEXT, st.none() | st.integers(1, 65535))),
        network=draw(
            st.sampled_from([Network(), Network("full"), Network("filtered", ("b.example", "a.example"))])
        ),
    )
    case = Case(spec, lock_of(*groups))
    for number in range(draw(st.integers(0, 3))):
        owner = draw(st.sampled_from(["0:0", "0:0", "app:app"]))
        case = case.with_file(f"/app/{number}", draw(TEXT), owner)
    return case


EDITS = st.sampled_from(
    [
        lambda case: case.with_group(apt=("deb-new",)),
        lambda case: case.with_group(pip=("whl_new",)),
        lambda case: case.with_group(apt=("deb-new",), pip=("whl_new",)),
        lambda case: case.with_step("echo new"),
        lambda case: case.with_step("echo first", at=0),
        lambda case: case.with_check("true new"),
        lambda case: case.with_file("/new/file", "new"),
        lambda case: case.with_file("/new/file", "new", "me:me"),
        lambda case: replace(case, spec=replace(case.spec, env={**case.spec.env, "NEW": "1"})),
        lambda case: replace(case, lock=replace(case.lock, base=base("apt", "dpkg", "new"))),
        lambda case: replace(case, spec=replace(case.spec, name="renamed")),
        lambda case: case,
    ]
)
"""What a user does to a file between two builds."""
