"""Definition records, and the structural difference of two of them as lines for people.

A record is the preimage of a key as JSON has it, so that one that was stored years ago and one that was
just planned compare as equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandboxfile.core.digest import Digest, Record, digest_of, record_of
from sandboxfile.core.layer import LAYER_TAG, Definition
from sandboxfile.plan.model import Plan
from sandboxfile.plan.planner import check_record
from sandboxfile.plan.wording import one_line

CONFIG = "config"
"""The name under which `records` holds the snapshot's configuration."""

# Fields that hold what a layer is made of; the others are compared as plain values.
_LISTS = ("packages", "install", "wheels", "remove", "entries")


def definition_record(definition: Definition) -> Record:
    """The record that is hashed for a layer: `{"kind": …, "definition": …}`."""
    return {"kind": definition.kind, "definition": record_of(definition)}


def record_key(record: Record) -> Digest:
    """The key of a layer's record; for an inherited layer the one it holds."""
    if record.get("kind") == "inherited":
        return Digest(str(record["key"]))
    return digest_of(LAYER_TAG, {"kind": record["kind"], "definition": record["definition"]})


def records(plan: Plan) -> dict[str, Record]:
    """What to remember of a plan that was built, by node name, for the next `reconcile`.

    Layers, checks, and the configuration under `config`.
    """
    kept: dict[str, Record] = {}
    for layer in plan.layers:
        if layer.definition is None:
            kept[layer.name] = {"kind": "inherited", "key": str(layer.key)}
        else:
            kept[layer.name] = definition_record(layer.definition)
    for check in plan.checks:
        kept[check.name] = {"kind": "check", "definition": record_of(check_record(check.check))}
    kept[CONFIG] = {"kind": CONFIG, "definition": record_of(plan.config)}
    return kept


def content(record: Record) -> Mapping[str, Any]:
    """A record's definition without the keys of what is below it."""
    if record.get("kind") == "inherited":
        return {"key": record["key"]}
    definition: Mapping[str, Any] = record["definition"]
    return {name: value for name, value in definition.items() if name != "parents"}


def changes(before: Record | None, after: Record | None) -> tuple[str, ...]:
    """The differences of two records, one a line, what they stand on left out.

    Without `before` the lines say what `after` is made of; without `after`, what is gone.
    """
    old = content(before) if before is not None else {}
    new = content(after) if after is not None else {}
    lines: list[str] = []
    for name in _LISTS:
        lines += _list_changes(name, old.get(name) or (), new.get(name) or ())
    if before is None or after is None:
        return tuple(lines)
    lines += _mapping_changes("env", old.get("env") or {}, new.get("env") or {})
    if old.get("install") == new.get("install") and old.get("auto") != new.get("auto"):
        lines += _mark_changes(old.get("auto") or (), new.get("auto") or ())
    for name in sorted({*old, *new} - {*_LISTS, "env", "auto"}):
        if old.get(name) != new.get(name):
            lines.append(f"{name}: {_value(old.get(name))} -> {_value(new.get(name))}")
    return tuple(lines)


def _list_changes(name: str, old: Any, new: Any) -> list[str]:
    if name in ("packages", "install"):
        return _package_changes(_by_package(old), _by_package(new))
    if name == "wheels":
        return _package_changes(_by_distribution(old), _by_distribution(new))
    if name == "entries":
        return _file_changes({e["path"]: e for e in old}, {e["path"]: e for e in new})
    added = [f"- {one_line(package)}" for package in sorted(set(new) - set(old))]
    return added + [f"{one_line(package)}: no longer removed" for package in sorted(set(old) - set(new))]


def _by_package(pins: Any) -> dict[str, tuple[str, str]]:
    names = [pin["name"] for pin in pins]
    labels = (
        pin["name"] if names.count(pin["name"]) == 1 else f"{pin['name']}:{pin['arch']}" for pin in pins
    )
    return {label: (pin["version"], pin["sha256"]) for label, pin in zip(labels, pins, strict=True)}


def _by_distribution(pins: Any) -> dict[str, tuple[str, str]]:
    found = {}
    for pin in pins:
        # A wheel's name holds no hyphen in its first two parts.
        name, _, rest = pin["filename"].partition("-")
        found[name.replace("_", "-").lower()] = (rest.partition("-")[0], pin["sha256"])
    return found


def _package_changes(old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]]) -> list[str]:
    lines = []
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        if was is None and now is not None:
            lines.append(f"+ {one_line(name)} {one_line(now[0])}")
        elif now is None and was is not None:
            lines.append(f"- {one_line(name)} {one_line(was[0])}")
        elif was is not None and now is not None and was[0] != now[0]:
            lines.append(f"~ {one_line(name)} {one_line(was[0])} -> {one_line(now[0])}")
        elif now is not None:
            lines.append(f"~ {one_line(name)} {one_line(now[0])}: another file")
    return lines


def _file_changes(old: Mapping[str, Record], new: Mapping[str, Record]) -> list[str]:
    lines = []
    for path in sorted({*old, *new}):
        was, now = old.get(path), new.get(path)
        if was == now:
            continue
        if was is None:
            what = "added"
        elif now is None:
            what = "removed"
        elif was["type"] != now["type"]:
            what = f"was a {was['type']}, is a {now['type']}"
        elif was["sha256"] != now["sha256"]:
            what = "changed"
        elif was["mode"] != now["mode"]:
            what = f"mode {was['mode']:o} -> {now['mode']:o}"
        elif was["owner"] != now["owner"]:
            what = f"owner {one_line(was['owner'])} -> {one_line(now['owner'])}"
        else:
            what = f"points to {one_line(now['target'])}"
        lines.append(f"files: {one_line(path)} {what}")
    return lines


def _mapping_changes(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in sorted({*old, *new}):
        if key not in old:
            lines.append(f"+ {name} {one_line(key)}: {_value(new[key])}")
        elif key not in new:
            lines.append(f"- {name} {one_line(key)}")
        elif old[key] != new[key]:
            lines.append(f"{name} {one_line(key)}: {_value(old[key])} -> {_value(new[key])}")
    return lines


def _mark_changes(old: Any, new: Any) -> list[str]:
    lines = [f"{one_line(name)}: marked as installed automatically" for name in sorted(set(new) - set(old))]
    return lines + [f"{one_line(name)}: marked as asked for" for name in sorted(set(old) - set(new))]


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, str):
        return one_line(value) or '""'
    if isinstance(value, Mapping):
        return one_line(" ".join(f"{k}={_value(v)}" for k, v in sorted(value.items()))) or "(none)"
    if isinstance(value, (list, tuple)):
        return one_line(" ".join(_value(v) for v in value)) or "(none)"
    return str(value).lower() if isinstance(value, bool) else str(value)
