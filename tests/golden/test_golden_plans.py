"""Each case is a directory with a Sandboxfile, its lock and its files, and the exact plan they make.

`before/` holds what was built last, where a case is about a change. A change of a key in a plan.json is a
change of the cache format: bump the tag it is made with, and say so in the changelog.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandboxfile.inputs.context import scan
from sandboxfile.plan.diff import records
from sandboxfile.plan.model import Plan, Reconciled
from sandboxfile.plan.planner import plan
from sandboxfile.plan.reconcile import reconcile
from sandboxfile.plan.render import render_dot, render_explain, render_json, render_mermaid, render_text
from sandboxfile.spec import lockreader
from sandboxfile.spec.load import load

CASES = sorted(path for path in (Path(__file__).parent / "plans").iterdir() if path.is_dir())


def planned(directory: Path) -> Plan:
    spec = load("Sandboxfile", (directory / "Sandboxfile").read_bytes(), default_name=directory.name)
    lock = lockreader.load((directory / "sandboxfile.lock").read_text())
    return plan(spec, lock, scan(directory, spec.files).entries)


def reconciled(case: Path) -> Reconciled:
    after = planned(case)
    if not (case / "before").exists():
        inherited = [layer.key for layer in after.layers if layer.inherited]
        return reconcile(after, have=inherited, blobs=(), passed=())
    before = planned(case / "before")
    return reconcile(
        after,
        have=before.stack,
        blobs=(),
        passed=[check.key for check in before.checks],
        previous=records(before),
    )


def written(case: Path) -> dict[str, str]:
    result = reconciled(case)
    names = [layer.name for layer in result.plan.layers] + [check.name for check in result.plan.checks]
    return {
        "plan.json": render_json(result),
        "plan.txt": render_text(result),
        "explain.txt": "\n".join(render_explain(result, name) for name in names),
        "graph.dot": render_dot(result),
        "graph.mmd": render_mermaid(result),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_and_its_lock_make_exactly_this_plan(case: Path, update_golden: bool) -> None:
    actual = written(case)
    if update_golden:
        for name, text in actual.items():
            (case / name).write_text(text)
    assert actual == {name: (case / name).read_text() for name in actual}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_keys_are_where_the_format_says(case: Path) -> None:
    document = json.loads((case / "plan.json").read_text())
    assert document["slug"] == f"{document['name'][:15]}-{document['key'].removeprefix('sha256:')[:16]}"
    assert all(layer["key"].startswith("sha256:") for layer in document["layers"])
