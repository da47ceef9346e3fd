"""Laws of planning, reconciling and scheduling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EDITS, Case, cases

from sandboxfile.core.digest import record_of
from sandboxfile.core.layer import preimage
from sandboxfile.plan.diff import definition_record, record_key, records
from sandboxfile.plan.graph import LayerGraph
from sandboxfile.plan.model import ActionKind, Plan
from sandboxfile.plan.reconcile import reconcile
from sandboxfile.plan.render import render_explain, render_json, render_text
from sandboxfile.testing.sums import SumEngine

Edit = Callable[[Case], Case]
_forbidden: ContextVar[bool] = ContextVar("forbidden", default=False)
_TOUCHES = ("open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "sqlite3.", "urllib.")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _forbidden.get() and event.startswith(_TOUCHES):
        raise AssertionError(f"the pure part did {event} {arguments}")


@contextmanager
def no_io() -> Iterator[None]:
    """Nothing may open a file, a socket or a process. A hook stays for the life of the process; the
    variable turns it on."""
    if not _hooks:
        sys.addaudithook(_audit)
        _hooks.append(_audit)
    token = _forbidden.set(True)
    try:
        yield
    finally:
        _forbidden.reset(token)


_hooks: list[Any] = []


def keys(plan: Plan) -> dict[str, str]:
    return {layer.name: layer.key for layer in plan.layers}


def build(case: Case, engine: SumEngine, choose: Any = min, previous: Any = None) -> tuple[str, ...]:
    planned = case.plan()
    reconciled = reconcile(planned, have=set(engine.layers), blobs=(), passed=(), previous=previous)
    return engine.run(reconciled, choose)


@given(cases(), EDITS, st.randoms(use_true_random=False))
def test_an_incremental_build_equals_a_clean_one(case: Case, edit: Edit, random: Any) -> None:
    engine, clean = SumEngine(), SumEngine()
    build(case, engine, random.choice)
    changed = edit(case)
    built = build(changed, engine, random.choice, records(case.plan()))
    build(changed, clean, random.choice)
    stack = changed.plan().stack
    assert [engine.layers[key] for key in stack] == [clean.layers[key] for key in stack]
    new = set(keys(changed.plan()).values()) - set(keys(case.plan()).values())
    assert {keys(changed.plan())[name] for name in built} == new
    assert build(changed, engine) == ()


@given(cases(), EDITS)
def test_what_is_not_built_is_reused_or_placed(case: Case, edit: Edit) -> None:
    before, after = case.plan(), edit(case).plan()
    reconciled = reconcile(after, have=before.stack, blobs=(), passed=(), previous=records(before))
    for layer in after.layers:
        action = reconciled.action(layer.name)
        assert (action.kind is ActionKind.BUILD) == (layer.key not in before.stack)
        assert action.kind is not ActionKind.PLACE or layer.detached
        assert action.reason.text
        assert action.reason.code


@given(cases())
def test_nothing_changed_means_nothing_to_do(case: Case) -> None:
    planned = case.plan()
    reconciled = reconcile(
        planned,
        have=planned.stack,
        blobs=(),
        passed=[check.key for check in planned.checks],
        published=True,
        previous=json.loads(json.dumps(records(planned), sort_keys=True)),
    )
    assert reconciled.published
    assert {action.kind for action in reconciled.actions} <= {
        ActionKind.REUSE,
        ActionKind.SKIP,
        ActionKind.REMEMBERED,
    }


@given(cases())
def test_a_file_a_check_or_a_step_at_the_end_moves_no_key_below(case: Case) -> None:
    before = keys(case.plan())
    assert keys(case.with_check("true more").plan()) == before
    after = keys(case.with_step("echo more").plan())
    assert {name: after[name] for name in before} == before
    file = keys(case.with_file("/more/file", "more").plan())
    assert all(file[name] == key for name, key in before.items() if name.startswith(("base", "apt", "pip")))


@given(cases())
def test_a_new_pip_request_is_one_package_layer_below_the_files(case: Case) -> None:
    before, after = case.plan(), case.with_group(pip=("whl_new",)).plan()
    packages = ("base", "apt", "pip")
    new = {n: k for n, k in keys(after).items() if n.startswith(packages) and k not in before.stack}
    assert list(new) == [f"pip-{len(case.lock.groups) + 1}"]
    names = [layer.name for layer in after.layers]
    above = names[names.index(next(iter(new))) + 1 :]
    assert all(name.startswith(("files", "run")) for name in above)
    assert {layer.key for layer in before.layers if layer.detached} <= set(after.stack)


@given(cases())
def test_the_order_of_env_does_not_matter_and_that_of_steps_does(case: Case) -> None:
    turned = replace(case, spec=replace(case.spec, env=dict(reversed(case.spec.env.items()))))
    assert turned.plan().key == case.plan().key
    two = case.with_step("echo 1").with_step("echo 2").plan()
    other = case.with_step("echo 2").with_step("echo 1").plan()
    assert two.key != other.key


@given(cases())
def test_labels_limits_and_timeouts_move_no_key(case: Case) -> None:
    spec = case.spec
    renamed = replace(
        spec,
        labels={"a": "b"},
        resources=replace(spec.resources, memory=1, cpus=0.5),
        run=tuple(replace(step, name="name", timeout=3.0) for step in spec.run),
        verify=tuple(replace(check, name="name", timeout=3.0) for check in spec.verify),
        start=replace(spec.start, timeout=9.0) if spec.start else None,
    )
    one, other = case.plan(), replace(case, spec=renamed).plan()
    assert one.key == other.key
    assert [check.key for check in one.checks] == [check.key for check in other.checks]


@given(cases())
def test_a_record_is_the_preimage_of_its_key(case: Case) -> None:
    for layer in case.plan().layers:
        assert layer.definition is not None
        record = definition_record(layer.definition)
        assert json.loads(preimage(layer.definition)) == ["sandboxfile.layer/v1", record_of(record)]
        assert record_key(json.loads(json.dumps(record))) == layer.key


@given(cases())
def test_the_graph_orders_every_node_after_what_it_waits_for(case: Case) -> None:
    graph = LayerGraph.of(case.plan())
    order = graph.order()
    assert sorted(order) == sorted(graph.nodes)
    assert all(order.index(edge.source) < order.index(edge.target) for edge in graph.edges)
    done: list[str] = []
    while ready := graph.ready(done):
        done += ready
    assert sorted(done) == sorted(graph.nodes)
    top = case.plan().layers[-1]
    if not top.detached:
        below = {name for name in graph.below(top.name) if not name.startswith("fetch:")}
        assert below == {layer.name for layer in case.plan().layers[:-1]}


@given(cases())
@settings(max_examples=20)
def test_planning_twice_gives_the_same_bytes(case: Case) -> None:
    assert written(case) == written(case)


@given(cases(), EDITS)
@settings(max_examples=30)
def test_planning_touches_nothing_outside(case: Case, edit: Edit) -> None:
    import networkx  # noqa: F401  (its import reads files; planning itself does not)

    edit(case).plan()
    with no_io():
        written(edit(case), records(case.plan()))
        LayerGraph.of(case.plan()).order()


def test_the_audit_hook_sees_what_it_should() -> None:
    with no_io(), pytest.raises(AssertionError, match="the pure part did open"):
        Path("/etc/hostname").read_text()


def written(case: Case, previous: Any = None) -> str:
    planned = case.plan()
    reconciled = reconcile(planned, have=planned.stack[:1], blobs=(), passed=(), previous=previous)
    explained = [render_explain(reconciled, layer.name) for layer in planned.layers]
    return "".join([render_text(reconciled), render_json(reconciled), *explained])


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from strategies import Case, lock_of
from test_planner import written
from sandboxfile.spec.model import DebianRequest, Sandboxfile
spec = Sandboxfile("env", DebianRequest("trixie"), env={"B": "2", "A": "1", "C": "3"})
lock = lock_of((("jq", "curl"), ("rich", "httpx")), ((), ("numpy",)))
case = Case(spec, lock).with_file("/app/a", "a").with_file("/app/b", "b").with_step("true").with_check("true")
sys.stdout.write(written(case))
"""


def test_planning_does_not_depend_on_the_hash_seed() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000
