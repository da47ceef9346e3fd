"""A reconciled plan as text, JSON, DOT and Mermaid. Stable: the golden plans hold these bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sandboxfile.core.digest import hexadecimal, record_of
from sandboxfile.core.units import plural, size_text
from sandboxfile.errors import UsageError
from sandboxfile.plan.diff import definition_record
from sandboxfile.plan.edges import EdgeKind
from sandboxfile.plan.graph import LayerGraph
from sandboxfile.plan.model import Action, ActionKind, Plan, PlannedLayer, Reconciled
from sandboxfile.plan.planner import check_record
from sandboxfile.plan.wording import columns, one_line

_MARKS = {
    ActionKind.BUILD: "+",
    ActionKind.REUSE: "=",
    ActionKind.PLACE: ">",
    ActionKind.FETCH: "v",
    ActionKind.CHECK: "*",
    ActionKind.REMEMBERED: "=",
    ActionKind.SKIP: " ",
}
_COLOURS = {
    ActionKind.BUILD: "32",
    ActionKind.PLACE: "36",
    ActionKind.FETCH: "34",
    ActionKind.CHECK: "33",
}
_MOST_CHANGES = 20


def render_text(reconciled: Reconciled, *, colour: bool = False) -> str:
    """The plan for people: a line for each node that matters, and a summary at the end."""
    titles = _titles(reconciled.plan)
    shown = [action for action in reconciled.actions if not _is_idle_fetch(action)]
    sizes = _sizes(reconciled)
    rows = [
        [
            f"{_MARKS[a.kind]} {a.kind.value}",
            _label(a.node),
            titles[a.node],
            *([sizes.get(a.node, "")] if sizes else []),
            one_line(a.reason.text, 120),
        ]
        for a in shown
    ]
    lines = [reconciled.plan.slug]
    for action, line in zip(shown, columns(rows), strict=True):
        code = _COLOURS.get(action.kind) if colour else None
        width = len(action.kind.value) + 2
        lines.append(f"  \x1b[{code}m{line[:width]}\x1b[0m{line[width:]}" if code else f"  {line}")
    lines += [f"note: {proposal}" for proposal in reconciled.plan.proposals]
    lines.append(summary(reconciled))
    return "\n".join(lines) + "\n"


def summary(reconciled: Reconciled) -> str:
    """One line: `1 layer to build, 5 reused; fetch 2 files, 1.4 MB; 3 checks`."""
    layers = {layer.name for layer in reconciled.plan.layers}
    kinds = [action.kind for action in reconciled.actions if action.node in layers]
    builds = kinds.count(ActionKind.BUILD)
    parts = [plural(builds, "layer") + " to build" if builds else "nothing to build"]
    parts += [f"{kinds.count(ActionKind.REUSE)} reused"] if ActionKind.REUSE in kinds else []
    parts += [f"{kinds.count(ActionKind.PLACE)} re-placed"] if ActionKind.PLACE in kinds else []
    clauses = [", ".join(parts)]
    fetched = [action for action in reconciled.actions if action.kind is ActionKind.FETCH]
    if fetched:
        files = sum(len(action.reason.changes) for action in fetched)
        size = sum(action.cost for action in fetched)
        clauses.append(f"fetch {plural(files, 'file')}" + (f", {size_text(size)}" if size else ""))
    checks = sum(1 for action in reconciled.actions if action.kind is ActionKind.CHECK)
    remembered = sum(1 for action in reconciled.actions if action.kind is ActionKind.REMEMBERED)
    if checks:
        clauses.append(plural(checks, "check") + (f", {remembered} remembered" if remembered else ""))
    elif remembered:
        clauses.append(f"{plural(remembered, 'check')} remembered")
    return "; ".join(clauses)


def plan_document(reconciled: Reconciled) -> dict[str, Any]:
    """The plan as JSON values: what `render_json` writes."""
    plan = reconciled.plan
    outcomes = {action.node: _outcome(action) for action in reconciled.actions}
    downloads = {fetch.layer: fetch.size for fetch in plan.fetches}
    layers = []
    for layer in plan.layers:
        entry: dict[str, Any] = {
            "name": layer.name,
            "kind": layer.kind,
            "title": layer.title,
            "key": layer.key,
            "detached": layer.detached,
            "inherited": layer.inherited,
            "group": layer.group,
            "download": downloads.get(layer.name, 0),
            "size": reconciled.sizes.get(layer.key),
            **outcomes[layer.name],
        }
        layers.append(entry)
    fetches = [
        {
            "name": fetch.name,
            "layer": fetch.layer,
            "files": len(fetch.items),
            "size": fetch.size,
            **outcomes[fetch.name],
        }
        for fetch in plan.fetches
    ]
    checks = [
        {"name": check.name, "title": check.title, "key": check.key, **outcomes[check.name]}
        for check in plan.checks
    ]
    return {
        "name": plan.name,
        "slug": plan.slug,
        "key": plan.key,
        "published": reconciled.published,
        "layers": layers,
        "fetches": fetches,
        "checks": checks,
        "config": record_of(plan.config),
        "proposals": list(plan.proposals),
        "summary": summary(reconciled),
    }


def render_json(reconciled: Reconciled) -> str:
    """The plan as JSON: keys, actions, reasons and changes of every node."""
    return json.dumps(plan_document(reconciled), indent=2, ensure_ascii=False) + "\n"


def render_dot(reconciled: Reconciled) -> str:
    """The layer graph in the language of Graphviz."""
    lines = [
        f"digraph {_quoted(reconciled.plan.name)} {{",
        "  rankdir=BT;",
        '  node [fontname="sans-serif"];',
    ]
    for name, text, kind in _drawn(reconciled):
        style = ', style="bold"' if kind in (ActionKind.BUILD, ActionKind.FETCH, ActionKind.CHECK) else ""
        lines.append(f"  {_quoted(name)} [label={_quoted(text)}, shape={_shape(name)}{style}];")
    for edge in LayerGraph.of(reconciled.plan).reduced():
        style = "" if edge.kind is EdgeKind.PARENT else f" [label={_quoted(edge.kind.value)}, style=dashed]"
        # Pointing up: what stands on something is above it.
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)}{style};")
    return "\n".join([*lines, "}"]) + "\n"


def render_mermaid(reconciled: Reconciled) -> str:
    """The layer graph in the language of Mermaid."""
    lines = ["flowchart BT"]
    ids = {}
    for number, (name, text, _) in enumerate(_drawn(reconciled)):
        ids[name] = f"n{number}"
        # Mermaid reads entities written as #name; or #number;.
        safe = text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace("\n", "<br>")
        left, right = {"box": ("[", "]"), "ellipse": ("([", "])"), "hexagon": ("{{", "}}")}[_shape(name)]
        lines.append(f'  {ids[name]}{left}"{safe}"{right}')
    for edge in LayerGraph.of(reconciled.plan).reduced():
        arrow = "-->" if edge.kind is EdgeKind.PARENT else f"-. {edge.kind.value} .->"
        lines.append(f"  {ids[edge.source]} {arrow} {ids[edge.target]}")
    return "\n".join(lines) + "\n"


def render_explain(reconciled: Reconciled, layer: str) -> str:
    """Everything about one layer or check, by name, or by the first digits of its key.

    Raises UsageError when there is none, or when the digits fit several.
    """
    plan = reconciled.plan
    name = _named(plan, layer)
    action = reconciled.action(name)
    rows = [["action", f"{action.kind.value}: {one_line(action.reason.text, 120)}"]]
    for check in plan.checks:
        if check.name == name:
            rows += [["key", check.key], ["gates", f"{plan.slug} ({plan.key})"]]
            rows += definition_rows(check_record(check.check))
            return explained(name, check.title, rows, action.reason.changes)
    planned = plan.layer(name)
    rows.append(["key", planned.key])
    if planned.group is not None:
        rows.append(["group", str(planned.group)])
    if planned.key in reconciled.sizes:
        rows.append(["size", size_text(reconciled.sizes[planned.key])])
    if download := sum(fetch.size for fetch in plan.fetches if fetch.layer == name):
        rows.append(["download", size_text(download)])
    if planned.detached:
        rows.append(["stands on", "nothing: it is detached, and placed on any chain"])
    elif planned.position:
        rows.append(["stands on", ", ".join(_parents(plan, planned))])
    if planned.definition is not None:
        definition = definition_record(planned.definition)["definition"]
        rows += definition_rows({key: value for key, value in definition.items() if key != "parents"})
    return explained(name, planned.title, rows, action.reason.changes)


def explained(name: str, title: str, rows: list[list[str]], changes: Sequence[str]) -> str:
    """One node: a line with its name, what is known of it in columns, and what changed."""
    lines = [f"{name}  {title}", *(f"  {line}" for line in columns(rows))]
    if changes:
        lines.append("  changes")
        lines += [f"    {line}" for line in changes[:_MOST_CHANGES]]
        if len(changes) > _MOST_CHANGES:
            lines.append(f"    and {len(changes) - _MOST_CHANGES} more")
    return "\n".join(lines) + "\n"


def definition_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """A definition's fields; a list of things longer than three is counted, not shown."""
    rows = []
    for name, value in record.items():
        if value in (None, [], {}):
            continue
        if isinstance(value, list):
            items = [_item(each) for each in value]
            text = ", ".join(items) if len(items) <= 3 else f"{len(items)}: {', '.join(items[:3])}, …"
        elif isinstance(value, dict):
            text = " ".join(f"{key}={each}" for key, each in sorted(value.items()))
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
        rows.append([name, one_line(text, 160)])
    return rows


def _item(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    if "path" in value:
        return str(value["path"])
    return str(value["filename"]) if "filename" in value else f"{value['name']} {value['version']}"


def _parents(plan: Plan, layer: PlannedLayer) -> list[str]:
    names = {each.key: each.name for each in plan.layers[: layer.position]}
    if layer.definition is None:
        return [plan.layers[layer.position - 1].name]
    return [names.get(key, hexadecimal(key)[:16]) for key in layer.definition.parents]


def _named(plan: Plan, text: str) -> str:
    keys = {layer.name: layer.key for layer in plan.layers} | {check.name: check.key for check in plan.checks}
    if text in keys:
        return text
    digits = text.removeprefix("sha256:")
    found = [name for name, key in keys.items() if len(digits) >= 4 and hexadecimal(key).startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"`{text}` is the beginning of several keys", hint=f"name one of {', '.join(found)}")
    from difflib import get_close_matches

    near = get_close_matches(text, keys, 1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(keys)}"
    raise UsageError(f"no layer or check is called `{text}`", hint=hint)


def _titles(plan: Plan) -> dict[str, str]:
    titles = {layer.name: layer.title for layer in plan.layers}
    titles |= {check.name: check.title for check in plan.checks}
    for fetch in plan.fetches:
        size = f", {size_text(fetch.size)}" if fetch.size else ""
        titles[fetch.name] = f"{plural(len(fetch.items), 'file')}{size}"
    return titles


def _sizes(reconciled: Reconciled) -> dict[str, str]:
    """What each built layer takes on the disk."""
    known = reconciled.sizes
    return {each.name: size_text(known[each.key]) for each in reconciled.plan.layers if each.key in known}


def _label(node: str) -> str:
    return node.removeprefix("fetch:")


def _is_idle_fetch(action: Action) -> bool:
    return action.kind is not ActionKind.FETCH and action.node.startswith("fetch:")


def _outcome(action: Action) -> dict[str, Any]:
    reason = action.reason
    return {
        "action": action.kind.value,
        "reason": {"code": reason.code, "text": reason.text, "changes": list(reason.changes)},
        "cost": action.cost,
    }


def _drawn(reconciled: Reconciled) -> list[tuple[str, str, ActionKind]]:
    """Name, label and action of each node, in the order of the graph."""
    titles = _titles(reconciled.plan)
    kinds = {action.node: action.kind for action in reconciled.actions}
    return [
        (name, f"{name}\n{titles[name]}\n{kinds[name].value}", kinds[name])
        for name in LayerGraph.of(reconciled.plan).order()
    ]


def _shape(name: str) -> str:
    if name.startswith("fetch:"):
        return "ellipse"
    return "hexagon" if name.startswith("verify-") else "box"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
