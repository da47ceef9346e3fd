"""From a Sandboxfile, its lock and the trees of its files to a Plan. Pure, and in one pass.

Layers stand in one order: base, then each package group (apt, then pip), then files, then run steps. A
layer that runs something in what is below names it in `parents`: the key of the nearest attached layer,
which holds everything below that one, and the keys of the detached layers since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from sandboxfile.core.digest import Digest, digest_of
from sandboxfile.core.layer import (
    AptLayer,
    DebianBase,
    Definition,
    FilesLayer,
    LayerKey,
    PackagePin,
    PipLayer,
    RootfsBase,
    RunLayer,
    ScratchBase,
    SnapshotConfig,
    TreeEntry,
    WheelPin,
    layer_key,
    snapshot_key,
)
from sandboxfile.core.slug import slug_of
from sandboxfile.core.units import plural, size_text
from sandboxfile.declared import dataclass, replace
from sandboxfile.errors import PlanError, Span
from sandboxfile.plan.environment import environment, network_text, snapshot_config
from sandboxfile.plan.model import Plan, PlannedCheck, PlannedFetch, PlannedLayer
from sandboxfile.plan.wording import listing, one_line
from sandboxfile.spec.lock import AptTransition, DebRow, LockedBase, Lockfile, PipTransition
from sandboxfile.spec.model import (
    Check,
    DebianRequest,
    FileRequest,
    RootfsRequest,
    RunStep,
    Sandboxfile,
    ScratchRequest,
    SnapshotRequest,
)

CHECK_TAG = "sandboxfile.check/v1"
SQUASH_BEYOND = 30
"""More package groups than this and a plan proposes to squash the lock."""


def plan(spec: Sandboxfile, lock: Lockfile, trees: Sequence[Sequence[TreeEntry]]) -> Plan:
    """The plan of a Sandboxfile. `trees[i]` is what `spec.files[i]` stands for.

    Raises PlanError when the lock does not fit the file, and for files that cannot stand together.
    """
    if len(trees) != len(spec.files):
        raise PlanError(f"{len(spec.files)} entries in files, but {len(trees)} trees were read")
    _fits(spec, lock.base)
    location = spec.base.location if isinstance(spec.base, RootfsRequest) else ""
    chain = _Chain(lock.base.epoch)
    _add_base(chain, lock.base, location, spec.base.span)
    for number, group in enumerate(lock.groups, 1):
        if group.apt is not None and (group.apt.rows or group.apt.removed or group.apt.manual):
            _add_apt(chain, spec, f"apt-{number}", group.apt)
        if group.pip is not None and group.pip.rows:
            _add_pip(chain, spec, f"pip-{number}", group.pip)
    _add_files(chain, spec.files, trees)
    for number, step in enumerate(spec.run, 1):
        _add_run(chain, spec, f"run-{number}", step)

    layers = chain.planned()
    config = snapshot_config(spec)
    key = snapshot_key(tuple(layer.key for layer in layers), config)
    proposals: tuple[str, ...] = ()
    if len(lock.groups) > SQUASH_BEYOND:
        proposals = (f"{len(lock.groups)} package groups: consider `sandboxfile lock --squash`",)
    return Plan(
        name=spec.name,
        layers=layers,
        fetches=tuple(chain.fetches),
        checks=tuple(_check(f"verify-{i}", check, key) for i, check in enumerate(spec.verify, 1)),
        config=config,
        key=key,
        slug=slug_of(spec.name, key),
        proposals=proposals,
    )


def plan_base(base: LockedBase, location: str = "") -> Plan:
    """The plan of a locked base and nothing on it, which a lock in the making needs built.

    `location` is where the tar of a `rootfs` base is. The layer's key is the one `plan` gives it.
    """
    chain = _Chain(base.epoch)
    _add_base(chain, base, location, None)
    layers = chain.planned()
    config = SnapshotConfig()
    key = snapshot_key(tuple(layer.key for layer in layers), config)
    return Plan("base", layers, tuple(chain.fetches), (), config, key, slug_of("base", key))


def check_record(check: Check) -> dict[str, object]:
    """What of a check decides whether a remembered result still holds: not its name, not its timeout."""
    http = check.http
    return {
        "run": check.run,
        "http": None
        if http is None
        else {"path": http.path, "status": http.status, "body": http.body, "method": http.method},
        "exit": check.exit,
        "stdout": check.stdout,
        "stderr": check.stderr,
        "env": dict(check.env),
        "workdir": check.workdir,
        "user": check.user,
        "network": network_text(check.network),
    }


@dataclass(frozen=True)
class _Layer:
    name: str
    title: str
    key: LayerKey
    definition: Definition | None
    span: Span | None
    forced: Mapping[str, str] = field(default_factory=dict)

    def at(self, position: int, chain: tuple[LayerKey, ...]) -> PlannedLayer:
        detached = isinstance(self.definition, FilesLayer) and not self.definition.parents
        return PlannedLayer(
            name=self.name,
            title=self.title,
            key=self.key,
            definition=self.definition,
            position=position,
            chain=chain,
            detached=detached,
            inherited=self.definition is None,
            forced=self.forced,
            span=self.span,
        )


@dataclass
class _Chain:
    """The layers so far, and the `parents` the next attached one will name."""

    epoch: int
    layers: list[_Layer] = field(default_factory=list)
    fetches: list[PlannedFetch] = field(default_factory=list)
    parents: list[LayerKey] = field(default_factory=list)

    def attached(
        self,
        name: str,
        title: str,
        definition: Definition,
        span: Span | None,
        forced: Mapping[str, str] | None = None,
    ) -> None:
        key = layer_key(definition)
        self.layers.append(_Layer(name, title, key, definition, span, forced or {}))
        self.parents = [key]

    def detached(self, name: str, title: str, definition: FilesLayer, span: Span | None) -> None:
        key = layer_key(definition)
        self.layers.append(_Layer(name, title, key, definition, span))
        self.parents.append(key)

    def inherited(self, name: str, title: str, key: LayerKey, span: Span | None) -> None:
        # Which layers of another snapshot are detached is not known here: each one is named.
        self.layers.append(_Layer(name, title, key, None, span))
        self.parents.append(key)

    def planned(self) -> tuple[PlannedLayer, ...]:
        keys = tuple(layer.key for layer in self.layers)
        return tuple(layer.at(position, keys) for position, layer in enumerate(self.layers))

    def fetch(self, layer: str, items: Sequence[tuple[str, int, str]]) -> None:
        if items:
            self.fetches.append(PlannedFetch(f"fetch:{layer}", layer, tuple(items)))


def _fits(spec: Sandboxfile, base: LockedBase) -> None:
    kinds = {
        DebianRequest: "debian",
        RootfsRequest: "rootfs",
        SnapshotRequest: "snapshot",
        ScratchRequest: "scratch",
    }
    wanted = kinds[type(spec.base)]
    if wanted != base.kind:
        raise PlanError(
            f"the lock holds a {base.kind} base, the Sandboxfile asks for {wanted}",
            span=spec.base.span,
            hint="run `sandboxfile lock`",
        )


def _add_base(chain: _Chain, base: LockedBase, location: str, span: Span | None) -> None:
    if base.kind == "debian":
        debian = DebianBase(
            suite=base.suite,
            architecture=base.architecture,
            packages=tuple(sorted(_pin(row) for row in base.packages)),
            epoch=base.epoch,
            components=base.components or ("main",),
        )
        size = sum(row.size for row in base.packages)
        title = f"debian:{base.suite} ({plural(len(base.packages), 'package')}, {size_text(size)})"
        chain.attached("base", title, debian, span)
        chain.fetch("base", _debs(base.packages))
    elif base.kind == "rootfs":
        rootfs = RootfsBase(rootfs=base.rootfs, epoch=base.epoch, origin=location)
        name = location or f"{base.rootfs[:16]}.tar"
        chain.attached("base", f"rootfs: {one_line(name)}", rootfs, span)
        # The size of the tar is not in the lock: 0 stands for "not known".
        chain.fetch("base", [(base.rootfs, 0, name)])
    elif base.kind == "snapshot":
        if not base.layers:
            raise PlanError(f"the lock names no layers for snapshot:{base.snapshot}", span=span)
        for number, key in enumerate(base.layers, 1):
            name = "base" if len(base.layers) == 1 else f"base-{number}"
            of = "" if len(base.layers) == 1 else f" (layer {number} of {len(base.layers)})"
            chain.inherited(name, f"snapshot:{base.snapshot}{of}", LayerKey(key), span)
    elif base.kind == "scratch":
        chain.attached("base", "scratch", ScratchBase(), span)
    else:
        raise PlanError(f"the lock holds a base of an unknown kind, `{one_line(base.kind)}`", span=span)


def _add_apt(chain: _Chain, spec: Sandboxfile, name: str, group: AptTransition) -> None:
    layer = AptLayer(
        parents=tuple(chain.parents),
        install=tuple(sorted(_pin(row) for row in group.rows)),
        remove=tuple(sorted(f"{row.name}:{row.arch}" for row in group.removed)),
        auto=tuple(sorted(f"{row.name}:{row.arch}" for row in group.rows if row.auto)),
        manual=tuple(sorted(group.manual)),
        epoch=chain.epoch,
    )
    size = sum(row.size for row in group.rows)
    facts = [f"{plural(len(group.rows), 'package')}, {size_text(size)}"] if group.rows else []
    replaced = sum(1 for row in group.rows if row.replaces)
    if replaced:
        facts.append(f"{replaced} replaced")
    if group.removed:
        facts.append(f"{len(group.removed)} removed")
    if group.manual:
        facts.append(f"{len(group.manual)} there already")
    requests = listing(sorted(group.requests), 5, " ") or "packages"
    span = _requested(group.requests, {str(r): r.span for r in spec.apt.packages}, spec.apt.span)
    chain.attached(name, f"apt: {one_line(requests)} ({'; '.join(facts)})", layer, span, _forced(group))
    chain.fetch(name, _debs(group.rows))


def _forced(group: AptTransition) -> dict[str, str]:
    """What a group does to packages that are there, and why, by the line a diff has for it."""
    lines = {}
    for row in group.rows:
        if row.replaces:
            change = f"~ {row.name} {row.replaces} -> {row.version}{_because(row.because)}"
            lines[f"+ {row.name} {row.version}"] = change
            lines[f"+ {row.name}:{row.arch} {row.version}"] = change
    for removed in group.removed:
        line = f"- {removed.name} {removed.version}{_because(removed.because)}"
        lines[f"- {removed.name}:{removed.arch}"] = line
    return {line: one_line(change, 120) for line, change in lines.items()}


def _because(name: str | None) -> str:
    return f", forced by {name}" if name else ""


def _add_pip(chain: _Chain, spec: Sandboxfile, name: str, group: PipTransition) -> None:
    span = _requested(group.requests, {r.requirement: r.span for r in spec.pip.requests}, spec.pip.span)
    version = group.python.split(".")
    if len(version) < 2:
        raise PlanError(
            f"the lock does not say for which Python {name} was solved",
            span=span,
            hint="add python3 to `apt`, then run `sandboxfile lock`",
        )
    layer = PipLayer(
        parents=tuple(chain.parents),
        wheels=tuple(
            sorted(WheelPin(row.filename, row.sha256, row.name, row.version, row.size) for row in group.rows)
        ),
        python=".".join(version[:2]),
        target=spec.pip.venv or "system",
        epoch=chain.epoch,
    )
    size = sum(row.size for row in group.rows)
    requests = one_line(listing(sorted(group.requests), 5, " ") or "distributions")
    title = f"pip: {requests} ({plural(len(group.rows), 'distribution')}, {size_text(size)})"
    chain.attached(name, title, layer, span)
    ordered = sorted(group.rows, key=lambda row: row.filename)
    chain.fetch(name, [(row.sha256, row.size, row.filename) for row in ordered])


def _add_files(chain: _Chain, requests: Sequence[FileRequest], trees: Sequence[Sequence[TreeEntry]]) -> None:
    """One layer for each run of entries of the same kind: owners all numeric, or not."""
    runs: list[tuple[bool, list[tuple[FileRequest, Sequence[TreeEntry]]]]] = []
    for request, tree in zip(requests, trees, strict=True):
        if not tree:
            continue
        by_name = any(not _numeric(entry.owner) for entry in tree)
        if not runs or runs[-1][0] != by_name:
            runs.append((by_name, []))
        runs[-1][1].append((request, tree))
    for number, (by_name, members) in enumerate(runs, 1):
        entries = _merge(members)
        layer = FilesLayer(entries=entries, epoch=chain.epoch)
        title = f"files: {one_line(listing([request.to for request, _ in members]))}"
        content = [entry for entry in entries if entry.type != "dir"]
        if len(content) > len(members):
            title += f" ({plural(len(content), 'file')}, {size_text(sum(e.size for e in content))})"
        span = members[0][0].span
        # A chain holds a key once: content that stands in it already, lower down, is tied to this place.
        if by_name or layer_key(layer) in (below.key for below in chain.layers):
            chain.attached(f"files-{number}", title, replace(layer, parents=tuple(chain.parents)), span)
        else:
            chain.detached(f"files-{number}", title, layer, span)


def _merge(members: Sequence[tuple[FileRequest, Sequence[TreeEntry]]]) -> tuple[TreeEntry, ...]:
    """The entries of one layer, parents before children; a later entry for the same path wins."""
    merged: dict[str, tuple[TreeEntry, FileRequest]] = {}
    for request, tree in members:
        for entry in tree:
            merged[entry.path] = (entry, request)
    for path, (_, request) in merged.items():
        above = path.rpartition("/")[0]
        while above:
            if above in merged and merged[above][0].type == "file":
                raise PlanError(
                    f"{path} needs a directory at {above}, but another entry of files puts a file there",
                    span=request.span,
                )
            above = above.rpartition("/")[0]
    return tuple(merged[path][0] for path in sorted(merged, key=lambda path: path.split("/")))


def _add_run(chain: _Chain, spec: Sandboxfile, name: str, step: RunStep) -> None:
    layer = RunLayer(
        parents=tuple(chain.parents),
        command=step.run,
        env=environment(spec, step.env),
        cwd=step.workdir or spec.workdir,
        user=step.user or spec.user,
        network=network_text(step.network),
        secrets=tuple(sorted(set(step.secrets))),
        epoch=chain.epoch,
        timeout=step.timeout,
    )
    chain.attached(name, f"run: {one_line(step.name or step.run)}", layer, step.span)


def _check(name: str, check: Check, snapshot: Digest) -> PlannedCheck:
    http = check.http
    what = (check.run or "") if http is None else f"{http.method} {http.path}"
    key = digest_of(CHECK_TAG, {"check": check_record(check), "snapshot": snapshot})
    return PlannedCheck(name, one_line(check.name or what), key, check)


def _pin(row: DebRow) -> PackagePin:
    return PackagePin(row.name, row.version, row.arch, row.sha256, row.size)


def _debs(rows: Sequence[DebRow]) -> list[tuple[str, int, str]]:
    ordered = sorted(rows, key=lambda row: (row.name, row.arch, row.version))
    return [(row.sha256, row.size, f"{row.name} {row.version}") for row in ordered]


def _requested(requests: Sequence[str], spans: dict[str, Span | None], default: Span | None) -> Span | None:
    for request in requests:
        if spans.get(request) is not None:
            return spans[request]
    return default


def _numeric(owner: str) -> bool:
    return all(part.isascii() and part.isdigit() for part in owner.split(":"))
