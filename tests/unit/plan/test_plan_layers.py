"""What a Sandboxfile and a lock become."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import (
    AptLayer,
    DebianBase,
    FilesLayer,
    LayerKey,
    PipLayer,
    RootfsBase,
    RunLayer,
    ScratchBase,
    TreeEntry,
)
from sandboxfile.errors import PlanError, Source, Span
from sandboxfile.plan.planner import plan, plan_base
from sandboxfile.spec.lock import (
    AptTransition,
    DebRow,
    Group,
    LockedBase,
    Lockfile,
    PipTransition,
    RemovedRow,
    WheelRow,
)
from sandboxfile.spec.model import (
    DebianRequest,
    FileRequest,
    Network,
    Pip,
    PipRequest,
    Resources,
    RootfsRequest,
    RunStep,
    Sandboxfile,
    ScratchRequest,
    Secret,
    SnapshotRequest,
    Start,
)

NOTHING = Digest("sha256:" + "0" * 64)


def deb(name: str, version: str = "1", **fields: object) -> DebRow:
    return DebRow(
        name, version, "amd64", f"{name}{version}".ljust(64, "0"), 10, f"pool/{name}", "debian", **fields
    )  # type: ignore[arg-type]


def wheel(name: str, version: str = "1") -> WheelRow:
    return WheelRow(name, version, f"{name}-{version}-py3-none-any.whl", name.ljust(64, "0"), 20)


DEBIAN = LockedBase(
    "debian:trixie", "debian", "amd64", 1_700_000_000, "trixie", ("main",), (), (deb("dpkg"), deb("apt"))
)
SPEC = Sandboxfile("demo", DebianRequest("trixie"))


def lock(*groups: Group, base: LockedBase = DEBIAN) -> Lockfile:
    return Lockfile(base, groups)


def entry(path: str, owner: str = "0:0", kind: str = "file") -> TreeEntry:
    return TreeEntry(path, kind, 0o644, owner, "a" * 64 if kind == "file" else "", size=5)


def files(*paths: str) -> tuple[FileRequest, ...]:
    return tuple(FileRequest(path, path) for path in paths)


def test_layers_stand_in_one_order_with_names_numbered_by_group() -> None:
    spec = replace(SPEC, files=files("/a"), run=(RunStep("true"),))
    groups = (
        Group(NOTHING, AptTransition(("x",), (deb("x"),)), PipTransition(("y",), "3.13.5", (wheel("y"),))),
        Group(NOTHING, None, PipTransition(("z",), "3.13.5", (wheel("z"),))),
        Group(NOTHING, AptTransition(("w",), (deb("w"),)), None),
    )
    planned = plan(spec, lock(*groups), [[entry("/a")]])
    names = [layer.name for layer in planned.layers]
    assert names == ["base", "apt-1", "pip-1", "pip-2", "apt-3", "files-1", "run-1"]


def test_an_attached_layer_names_the_nearest_attached_one_and_the_detached_since() -> None:
    spec = replace(SPEC, files=files("/a"), run=(RunStep("one"), RunStep("two")))
    planned = plan(spec, lock(), [[entry("/a")]])
    base, detached, first, second = planned.layers
    assert isinstance(first.definition, RunLayer)
    assert first.definition.parents == (base.key, detached.key)
    assert second.definition is not None
    assert second.definition.parents == (first.key,)
    assert detached.detached
    assert second.stack == (base.key, detached.key, first.key)


def test_an_apt_layer_is_the_groups_transition() -> None:
    rows = (deb("zlib1g", "2", replaces="1", because="z-dev"), deb("jq", auto=True))
    group = Group(NOTHING, AptTransition(("jq",), rows, (RemovedRow("old", "1", "amd64"),)))
    layer = plan(SPEC, lock(group), []).layer("apt-1")
    assert isinstance(layer.definition, AptLayer)
    assert [(pin.name, pin.version) for pin in layer.definition.install] == [("jq", "1"), ("zlib1g", "2")]
    assert layer.definition.remove == ("old:amd64",)
    assert layer.definition.auto == ("jq:amd64",)
    assert layer.definition.epoch == DEBIAN.epoch
    assert layer.title == "apt: jq (2 packages, 20 B; 1 replaced; 1 removed)"


def test_a_group_without_rows_is_no_layer() -> None:
    group = Group(NOTHING, AptTransition(("apt",)), PipTransition(("pip",), "3.13.5"))
    assert [layer.name for layer in plan(SPEC, lock(group), []).layers] == ["base"]


def test_only_the_minor_version_of_python_is_in_a_pip_layer() -> None:
    def keyed(python: str) -> LayerKey:
        group = Group(NOTHING, None, PipTransition(("y",), python, (wheel("y"),)))
        layer = plan(SPEC, lock(group), []).layer("pip-1")
        assert isinstance(layer.definition, PipLayer)
        assert layer.definition.python == ".".join(python.split(".")[:2])
        return layer.key

    assert keyed("3.13.5") == keyed("3.13.6")
    assert keyed("3.13.5") != keyed("3.12.5")


def test_a_pip_group_without_a_python_is_refused() -> None:
    group = Group(NOTHING, None, PipTransition(("y",), "", (wheel("y"),)))
    with pytest.raises(PlanError, match="does not say for which Python pip-1 was solved"):
        plan(SPEC, lock(group), [])


def test_a_venv_is_the_target_and_comes_first_in_path() -> None:
    spec = replace(SPEC, pip=Pip(venv="/opt/venv"), run=(RunStep("pip --version", env={"A": "1"}),))
    group = Group(NOTHING, None, PipTransition(("y",), "3.13.5", (wheel("y"),)))
    planned = plan(spec, lock(group), [])
    pip, run = planned.layer("pip-1").definition, planned.layer("run-1").definition
    assert isinstance(pip, PipLayer)
    assert isinstance(run, RunLayer)
    assert pip.target == "/opt/venv"
    path = "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert planned.config.env == {"PATH": path, "VIRTUAL_ENV": "/opt/venv"}
    assert run.env == {"PATH": path, "VIRTUAL_ENV": "/opt/venv", "A": "1"}


def test_a_step_has_the_files_defaults_and_its_own_words() -> None:
    spec = replace(
        SPEC,
        env={"A": "file", "B": "file"},
        workdir="/srv/app",
        user="app",
        run=(
            RunStep("one", env={"A": "step"}, network=True, secrets=("b", "a")),
            RunStep("two", workdir="/else", user="root", network=("z.example", "a.example")),
        ),
    )
    one, two = (plan(spec, lock(), []).layer(name).definition for name in ("run-1", "run-2"))
    assert isinstance(one, RunLayer)
    assert isinstance(two, RunLayer)
    assert (one.env, one.cwd, one.user) == ({"A": "step", "B": "file"}, "/srv/app", "app")
    assert (one.network, one.secrets) == ("full", ("a", "b"))
    assert (two.cwd, two.user, two.network) == ("/else", "root", "filtered:a.example,z.example")


def test_files_are_grouped_by_whether_they_are_detached() -> None:
    spec = replace(SPEC, files=files("/a", "/b", "/c", "/d", "/e"))
    trees = [[entry("/a")], [entry("/b", "1:2")], [entry("/c", "me:me")], [], [entry("/e")]]
    planned = plan(spec, lock(), trees)
    shown = [(layer.name, layer.detached, layer.title) for layer in planned.layers[1:]]
    assert shown == [
        ("files-1", True, "files: /a, /b"),
        ("files-2", False, "files: /c"),
        ("files-3", True, "files: /e"),
    ]


def test_a_later_entry_for_a_path_wins_and_parents_come_first() -> None:
    spec = replace(SPEC, files=files("/a", "/a/b"))
    first = [entry("/a/b"), entry("/a", kind="dir")]
    second = [replace(entry("/a/b"), sha256="b" * 64)]
    layer = plan(spec, lock(), [first, second]).layer("files-1").definition
    assert isinstance(layer, FilesLayer)
    assert [(each.path, each.sha256[:1]) for each in layer.entries] == [("/a", ""), ("/a/b", "b")]


def test_a_file_where_a_directory_is_needed_is_refused_at_its_line() -> None:
    span = Span(Source("Sandboxfile", ""), 7, 3)
    spec = replace(SPEC, files=(FileRequest("/a", "a"), FileRequest("/a/b", "b", span=span)))
    with pytest.raises(PlanError, match="/a/b needs a directory at /a") as caught:
        plan(spec, lock(), [[entry("/a")], [entry("/a/b")]])
    assert caught.value.span == span


def test_the_same_files_twice_in_a_chain_have_two_keys() -> None:
    spec = replace(SPEC, files=files("/a", "/b", "/a"))
    planned = plan(spec, lock(), [[entry("/a")], [entry("/b", "me:me")], [entry("/a")]])
    assert len(set(planned.stack)) == 4


def test_the_layers_of_a_snapshot_base_are_inherited() -> None:
    keys = (Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64))
    base = LockedBase("snapshot:x-1", "snapshot", "amd64", 5, snapshot="x-1", layers=keys)
    spec = replace(SPEC, base=SnapshotRequest("x-1"), run=(RunStep("true"),))
    planned = plan(spec, lock(base=base), [])
    assert [(layer.name, layer.inherited) for layer in planned.layers[:2]] == [
        ("base-1", True),
        ("base-2", True),
    ]
    assert planned.layers[2].definition is not None
    assert planned.layers[2].definition.parents == keys
    only = plan(spec, lock(base=replace(base, layers=keys[:1])), [])
    assert only.layers[0].name == "base"


def test_other_bases() -> None:
    tar = LockedBase("rootfs:aa", "rootfs", "amd64", 5, rootfs="a" * 64)
    planned = plan(replace(SPEC, base=RootfsRequest("base.tar", "a" * 64)), lock(base=tar), [])
    assert planned.layers[0].definition == RootfsBase("a" * 64, 5)
    assert planned.fetches[0].items == (("a" * 64, 0, "base.tar"),)
    empty = LockedBase("scratch", "scratch", "amd64", 5)
    planned = plan(replace(SPEC, base=ScratchRequest()), lock(base=empty), [])
    assert planned.layers[0].definition == ScratchBase()
    assert planned.fetches == ()


def test_the_base_of_a_lock_in_the_making_has_the_key_it_will_have() -> None:
    assert plan_base(DEBIAN).layers[0].key == plan(SPEC, lock(), []).layers[0].key
    assert isinstance(plan_base(DEBIAN).layers[0].definition, DebianBase)
    assert plan_base(DEBIAN).fetches == plan(SPEC, lock(), []).fetches


def test_a_lock_of_another_base_is_refused() -> None:
    with pytest.raises(PlanError, match="the lock holds a debian base, the Sandboxfile asks for scratch"):
        plan(replace(SPEC, base=ScratchRequest()), lock(), [])


def test_trees_belong_to_entries() -> None:
    with pytest.raises(PlanError, match="1 entries in files, but 0 trees were read"):
        plan(replace(SPEC, files=files("/a")), lock(), [])


def test_the_configuration_is_the_files() -> None:
    spec = replace(
        SPEC,
        env={"A": "1"},
        user="app",
        workdir="/app",
        start=Start("serve", 8000, 60.0),
        network=Network("filtered", ("b.example", "a.example")),
        secrets=(Secret("b"), Secret("a")),
        resources=Resources(memory=1024, cpus=1.5),
        labels={"team": "x"},
    )
    config = plan(spec, lock(), []).config
    assert (config.env, config.user, config.workdir) == ({"A": "1"}, "app", "/app")
    assert config.network == "filtered:a.example,b.example"
    assert config.secrets == ("a", "b")
    assert config.resources == {"memory": "1024", "cpus": "1.5"}
    assert config.start is not None
    assert (config.start.command, config.start.port, config.start.timeout) == ("serve", 8000, 60.0)


def test_many_groups_propose_a_squash() -> None:
    groups = [Group(NOTHING, None, PipTransition((f"w{i}",), "3.13.5", (wheel(f"w{i}"),))) for i in range(31)]
    assert plan(SPEC, lock(*groups[:30]), []).proposals == ()
    assert plan(SPEC, lock(*groups), []).proposals == (
        "31 package groups: consider `sandboxfile lock --squash`",
    )


def test_a_layer_knows_the_line_it_comes_from() -> None:
    span = Span(Source("Sandboxfile", ""), 3, 1)
    spec = replace(SPEC, pip=Pip(requests=(PipRequest("y", span=span),)), run=(RunStep("true", span=span),))
    group = Group(NOTHING, None, PipTransition(("y",), "3.13.5", (wheel("y"),)))
    planned = plan(spec, lock(group), [])
    assert planned.layer("pip-1").span == span
    assert planned.layer("run-1").span == span


def test_a_thousand_layers_share_one_chain() -> None:
    spec = replace(SPEC, run=tuple(RunStep(f"echo {number}") for number in range(1000)))
    planned = plan(spec, lock(), [])
    assert len(planned.layers) == 1001
    assert len({id(layer.chain) for layer in planned.layers}) == 1
    assert planned.layers[-1].stack == planned.stack[:-1]
