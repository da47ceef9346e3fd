"""Why each node is built, reused, placed or checked, in words."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "property"))

from strategies import Case, base, deb, lock_of

from sandboxfile.core.layer import LayerKey
from sandboxfile.errors import PlanError, UsageError
from sandboxfile.plan.diff import changes, records
from sandboxfile.plan.graph import LayerGraph
from sandboxfile.plan.model import ActionKind, Reconciled
from sandboxfile.plan.reconcile import reconcile
from sandboxfile.plan.render import render_explain, render_json, render_text, summary
from sandboxfile.spec.lock import AptTransition, LockedBase, Lockfile, RemovedRow
from sandboxfile.spec.model import Check, DebianRequest, RunStep, Sandboxfile, SnapshotRequest

SPEC = Sandboxfile("demo", DebianRequest("trixie"), verify=(Check("true"),))
CASE = (
    Case(SPEC, lock_of((("python3",), ("numpy",))))
    .with_file("/app/app.py", "print()")
    .with_step("echo one")
    .with_step("echo two")
)


def after(case: Case, before: Case = CASE, **given: object) -> Reconciled:
    """`case` planned where `before` was built and passed its checks."""
    old = before.plan()
    facts: dict[str, object] = {
        "have": old.stack,
        "blobs": (),
        "passed": [check.key for check in old.checks],
        "previous": records(old),
        **given,
    }
    return reconcile(case.plan(), **facts)  # type: ignore[arg-type]


def reason(reconciled: Reconciled, node: str) -> tuple[str, str]:
    action = reconciled.action(node)
    return action.kind.value, action.reason.text


def test_a_first_build_has_nothing_to_compare_with() -> None:
    reconciled = reconcile(CASE.plan(), have=(), blobs=(), passed=())
    assert reason(reconciled, "base") == ("build", "not built yet")
    assert reason(reconciled, "fetch:base") == ("fetch", "2 files to fetch")
    assert reason(reconciled, "verify-1") == ("check", "not run yet")


def test_nothing_changed() -> None:
    reconciled = after(CASE, published=True)
    assert reason(reconciled, "apt-1") == ("reuse", "already built")
    assert reason(reconciled, "fetch:apt-1") == ("skip", "apt-1 is already built")
    assert reason(reconciled, "verify-1") == ("remembered", "passed before")
    assert reconciled.published


def test_a_pip_package_was_added() -> None:
    reconciled = after(CASE.with_group(pip=("rich", "pygments")))
    assert reason(reconciled, "base")[0] == "reuse"
    assert reason(reconciled, "pip-1")[0] == "reuse"
    assert reason(reconciled, "pip-2") == ("build", "+ pygments 1.0, + rich 1.0")
    assert reason(reconciled, "files-1") == ("place", "re-placed on the new packages, not rebuilt")
    assert reason(reconciled, "run-1") == ("build", "run again: packages below it changed (pip-2)")
    assert reason(reconciled, "verify-1") == ("check", "the environment changed: pip-2")
    assert reconciled.action("run-2").reason.changes == ("pip-2 was added",)
    assert not reconciled.published


def test_a_package_group_below_others_was_added() -> None:
    groups = lock_of((("python3", "jq"), ()), ((), ("numpy",)))
    before = replace(CASE, lock=lock_of((("python3",), ()), ((), ("numpy",))))
    reconciled = after(replace(CASE, lock=groups), before)
    assert reason(reconciled, "apt-1") == ("build", "+ jq 1")
    assert reason(reconciled, "pip-2") == ("build", "packages below changed: apt-1 was changed")


def test_a_step_put_in_front_is_one_new_step() -> None:
    reconciled = after(CASE.with_step("echo zero", at=0))
    assert reason(reconciled, "run-1") == ("build", "new step")
    assert reason(reconciled, "run-2") == ("build", "run again: steps below it changed (run-1)")


def test_a_step_was_removed() -> None:
    reconciled = after(replace(CASE, spec=replace(CASE.spec, run=CASE.spec.run[1:])))
    assert reason(reconciled, "run-1") == ("build", "run again: steps below it changed (run-1 removed)")


def test_a_step_was_changed() -> None:
    steps = (RunStep("echo one", env={"A": "1"}), CASE.spec.run[1])
    reconciled = after(replace(CASE, spec=replace(CASE.spec, run=steps)))
    assert reason(reconciled, "run-1") == ("build", "+ env A: 1")


def test_a_file_was_changed() -> None:
    def with_app(content: str) -> Case:
        return Case(SPEC, CASE.lock).with_file("/app/app.py", content).with_step("echo one")

    reconciled = after(with_app("print(2)"), with_app("print()"))
    assert reason(reconciled, "files-1") == ("build", "files: /app/app.py changed")
    assert reason(reconciled, "run-1") == ("build", "run again: files below it changed (files-1)")


def test_only_a_check_changed() -> None:
    verify = (Check("true", stdout="x"), Check("more"))
    reconciled = after(replace(CASE, spec=replace(CASE.spec, verify=verify)))
    assert reconciled.builds == ()
    assert reason(reconciled, "verify-1") == ("check", "only the check changed")
    assert reconciled.action("verify-1").reason.changes == ("stdout: (none) -> x",)
    assert reason(reconciled, "verify-2") == ("check", "new check")


def test_a_check_put_in_front_leaves_the_others_remembered() -> None:
    verify = (Check("new"), *CASE.spec.verify)
    reconciled = after(replace(CASE, spec=replace(CASE.spec, verify=verify)))
    assert reason(reconciled, "verify-1")[1] == "new check"
    assert reason(reconciled, "verify-2")[0] == "remembered"


def test_only_the_configuration_changed() -> None:
    reconciled = after(
        replace(CASE, spec=replace(CASE.spec, run=(), user="app")),
        replace(CASE, spec=replace(CASE.spec, run=())),
    )
    assert reconciled.builds == ()
    assert reason(reconciled, "verify-1") == ("check", "the configuration changed: user: root -> app")


def test_a_check_that_did_not_pass_runs_again() -> None:
    assert reason(after(CASE, passed=()), "verify-1") == ("check", "did not pass yet")


def test_a_layer_that_is_gone_is_built_again() -> None:
    gone = CASE.plan().layer("pip-1").key
    have = [key for key in CASE.plan().stack if key != gone]
    reconciled = after(CASE, have=have, published=True)
    assert reason(reconciled, "pip-1") == ("build", "built before, but no longer in the store")
    assert reason(reconciled, "run-1")[0] == "reuse"
    assert not reconciled.published


def test_forced_nodes_are_done_again() -> None:
    reconciled = after(CASE, force=("run-1", "verify-1"), published=True)
    assert reason(reconciled, "run-1") == ("build", "asked for by name")
    assert reason(reconciled, "verify-1") == ("check", "asked for by name")
    assert reconciled.forced == {"run-1", "verify-1"}
    assert not reconciled.published


def test_forcing_something_unknown_names_what_is_near() -> None:
    with pytest.raises(UsageError, match="nothing in this plan is called `run1`") as caught:
        after(CASE, force=("run1",))
    assert caught.value.hint == "did you mean `run-1`?"


def test_only_missing_files_are_fetched() -> None:
    plan = CASE.plan()
    held = plan.fetches[0].items[0][0]
    reconciled = reconcile(plan, have=(), blobs=[held], passed=())
    action = reconciled.action("fetch:base")
    assert action.reason.text == "1 of 2 files to fetch"
    assert action.cost == plan.fetches[0].items[1][1]
    everything = [sha for fetch in plan.fetches for sha, _, _ in fetch.items]
    reconciled = reconcile(plan, have=(), blobs=everything, passed=())
    assert reason(reconciled, "fetch:base") == ("reuse", "all 2 files are in the store")


def test_a_snapshot_base_must_be_in_the_store() -> None:
    key = CASE.plan().stack[0]
    locked = LockedBase("snapshot:x-1", "snapshot", "amd64", 5, snapshot="x-1", layers=(key,))
    case = Case(replace(SPEC, base=SnapshotRequest("x-1")), Lockfile(locked))
    reconciled = reconcile(case.plan(), have=[key], blobs=(), passed=())
    assert reason(reconciled, "base") == ("reuse", "part of the base snapshot")
    with pytest.raises(PlanError, match="a layer of the base snapshot is not in the store"):
        reconcile(case.plan(), have=(), blobs=(), passed=())


def test_records_may_have_been_stored_in_any_order() -> None:
    turned = dict(sorted(records(CASE.plan()).items(), reverse=True))
    assert render_text(after(CASE.with_step("x"), previous=turned)) == render_text(after(CASE.with_step("x")))


def test_differences_of_packages_are_lines() -> None:
    before = replace(CASE, lock=lock_of(on=base("apt", "gone", "same")))
    rows = (deb("apt", "2"), deb("same"), deb("new"))
    locked = replace(before.lock.base, packages=rows)
    after_ = replace(CASE, lock=Lockfile(locked))
    old, new = records(before.plan())["base"], records(after_.plan())["base"]
    assert changes(old, new) == ("~ apt 1 -> 2", "- gone 1", "+ new 1")


def test_a_removed_package_is_a_line() -> None:
    from sandboxfile.core.layer import AptLayer
    from sandboxfile.plan.diff import definition_record

    layer = AptLayer(parents=(), install=(), remove=("old:amd64",), auto=(), epoch=1)
    assert changes(None, definition_record(layer)) == ("- old:amd64",)


def test_the_summary_counts() -> None:
    reconciled = after(CASE.with_group(pip=("rich",)))
    assert summary(reconciled) == "3 layers to build, 3 reused, 1 re-placed; fetch 1 file, 8.0 kB; 1 check"
    assert summary(after(CASE)) == "nothing to build, 6 reused; 1 check remembered"


def test_text_cannot_move_the_cursor() -> None:
    hostile = CASE.with_step("printf '\x1b[2J'\necho\x07").with_check("true \x9b31m")
    text = render_text(after(hostile)) + render_explain(after(hostile), "run-3")
    assert not any(character in text for character in "\x1b\x07\x9b")


def test_colour_only_marks_what_the_words_say() -> None:
    reconciled = after(CASE.with_group(pip=("rich",)))
    plain, coloured = render_text(reconciled), render_text(reconciled, colour=True)
    assert "\x1b[32m+ build" in coloured
    import re

    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_json_has_every_node() -> None:
    import json

    document = json.loads(render_json(after(CASE.with_group(pip=("rich",)))))
    assert [layer["action"] for layer in document["layers"]] == [
        "reuse",
        "reuse",
        "reuse",
        "build",
        "place",
        "build",
        "build",
    ]
    assert document["layers"][3]["reason"]["changes"] == ["+ rich 1.0"]
    assert document["summary"].startswith("3 layers to build")


def test_explain_finds_layers_by_name_and_by_key() -> None:
    reconciled = after(CASE)
    by_name = render_explain(reconciled, "pip-1")
    assert by_name == render_explain(reconciled, CASE.plan().layer("pip-1").key.removeprefix("sha256:")[:12])
    assert "stands on      apt-1" in by_name
    assert "normalise/v2" in by_name
    assert "detached" in render_explain(reconciled, "files-1")
    assert "gates" in render_explain(reconciled, "verify-1")
    with pytest.raises(UsageError, match="no layer or check is called `pip1`") as caught:
        render_explain(reconciled, "pip1")
    assert caught.value.hint == "did you mean `pip-1`?"


def test_a_cycle_is_reported_with_its_path() -> None:
    from sandboxfile.plan.edges import Edge, EdgeKind

    def edge(source: str, target: str) -> Edge:
        return Edge(source, target, EdgeKind.PARENT)

    graph = LayerGraph(("a", "b", "c", "d"), (edge("d", "b"), edge("b", "c"), edge("c", "b"), edge("a", "b")))
    with pytest.raises(PlanError, match="layers wait for each other: b -> c -> b"):
        graph.order()


def test_a_build_with_nothing_to_do_does_not_load_the_graph_library() -> None:
    import subprocess

    program = (
        "import sys; import sandboxfile.plan.reconcile, sandboxfile.plan.render, sandboxfile.plan.schedule;"
        "sys.exit('networkx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_placed_is_not_built() -> None:
    reconciled = after(CASE.with_group(apt=("jq",)))
    assert reconciled.action("files-1").kind is ActionKind.PLACE
    assert "files-1" not in reconciled.builds


def test_what_a_group_forces_is_said_first() -> None:
    replaced = replace(deb("apt", "2", replaces="1"), because="new")
    transition = AptTransition(("new",), (deb("a-new"), replaced), (RemovedRow("dpkg", "1", "amd64", "new"),))
    group = replace(CASE.lock.groups[0], apt=transition, pip=None)
    case = replace(CASE, lock=Lockfile(CASE.lock.base, (*CASE.lock.groups, group)))
    text = "~ apt 1 -> 2, forced by new; - dpkg 1, forced by new; + a-new 1"
    assert reason(after(case), "apt-2") == ("build", text)


def test_keys_are_layer_keys() -> None:
    assert all(isinstance(key, str) for key in CASE.plan().stack)
    assert LayerKey(CASE.plan().layers[0].key) == CASE.plan().stack[0]
