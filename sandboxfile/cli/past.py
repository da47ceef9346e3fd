"""Earlier builds and layers of other builds, as `explain` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandboxfile.build.why import day
from sandboxfile.cli.console import columns
from sandboxfile.cli.safe import safe
from sandboxfile.core.digest import hexadecimal
from sandboxfile.core.units import plural, size_text
from sandboxfile.errors import UsageError
from sandboxfile.plan.diff import changes, records
from sandboxfile.plan.render import definition_rows, explained

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.build.why import KnownLayer
    from sandboxfile.plan.model import Plan
    from sandboxfile.store.records import Done, PastBuild


def builds_text(builds: tuple[PastBuild, ...]) -> str:
    """A line for each build: when it was, what it came to, what it built and why."""
    rows = [("BUILD", "WHEN", "SLUG", "BUILT", "WHY")]
    for build in builds:
        built = [each for each in build.actions if each.action == "build"]
        why = f"{built[0].node}: {built[0].text}" if built else "only what is no layer changed"
        rows.append((str(build.number), day(build.built), build.slug, str(len(built)), safe(why)))
    return columns(rows)


def build_document(build: PastBuild) -> dict[str, Any]:
    """A build as JSON."""
    return {
        "build": build.number,
        "slug": build.slug,
        "built": build.built,
        "layers": dict(build.layers),
        "actions": [
            {
                "name": each.node,
                "action": each.action,
                "reason": {"code": each.code, "text": each.text, "changes": list(each.changes)},
            }
            for each in build.actions
        ],
    }


def node_names(build: PastBuild, wanted: str | None) -> list[str]:
    """The nodes of an earlier build, or the one that a name or the beginning of a key stands for. UsageError
    when there is none."""
    names = [each.node for each in build.actions]
    if wanted is None:
        return names
    digits = wanted.removeprefix("sha256:")
    found = [name for name in names if name == wanted] or [
        name for name, key in build.layers.items() if len(digits) >= 4 and hexadecimal(key).startswith(digits)
    ]
    if len(found) != 1:
        hint = f"it had {', '.join(names)}"
        raise UsageError(f"build {build.number} had no layer or check called `{wanted}`", hint=hint)
    return found


def past_text(client: AsyncClient, build: PastBuild, names: list[str]) -> str:
    """What an earlier build did with nodes of its plan, and what became of them."""
    actions: dict[str, Done] = {each.node: each for each in build.actions}
    texts = [f"build {build.number} of {day(build.built)}  {build.slug}"]
    for name in names:
        done = actions[name]
        rows = [["action", f"{done.action}: {done.text}"]]
        definition = build.definitions.get(name, {})
        if name in build.layers:
            rows.append(["key", build.layers[name]])
        fields = definition.get("definition", {})
        rows += definition_rows({field: value for field, value in fields.items() if field != "parents"})
        if name in build.layers:
            rows.append(["now", _now(client, build.layers[name])])
        title = str(definition.get("kind", ""))
        texts.append(safe(explained(name, title, rows, done.changes).rstrip("\n")))
    return "\n\n".join(texts)


def known_text(client: AsyncClient, known: KnownLayer, plan: Plan) -> str:
    """A layer that is no part of the present plan: what it was, what became of it, and how the layer of that
    name differs from it now."""
    rows = [["key", str(known.key)]]
    if known.definition is not None and known.definition.get("kind") != "inherited":
        fields = known.definition["definition"]
        rows += definition_rows({field: value for field, value in fields.items() if field != "parents"})
    for environment, number in known.builds[:3]:
        rows.append(["built for", f"{environment}, build {number}"])
    if not known.builds and known.eviction is not None and known.eviction.environment:
        rows.append(["built for", known.eviction.environment])
    rows.append(["now", _now(client, known.key)])
    return safe(explained(known.name, known.kind, rows, differences(known, plan)).rstrip("\n"))


def differences(known: KnownLayer, plan: Plan) -> tuple[str, ...]:
    """How the layer of that name in the plan differs from an earlier one."""
    now = records(plan).get(known.name)
    if now is None or known.definition is None or now["kind"] != known.definition["kind"]:
        return ()
    return changes(known.definition, now)


def known_document(client: AsyncClient, known: KnownLayer, plan: Plan) -> dict[str, Any]:
    """The same as JSON."""
    stone = known.eviction
    return {
        "name": known.name,
        "key": known.key,
        "kind": known.kind,
        "definition": known.definition["definition"] if known.definition else None,
        "builds": [{"environment": where, "build": number} for where, number in known.builds],
        "present": client.has_layer(known.key),
        "evicted": {"when": stone.evicted, "reason": stone.reason} if stone else None,
        "changes": list(differences(known, plan)),
    }


def _now(client: AsyncClient, key: str) -> str:
    """What became of a layer."""
    if client.has_layer(key):
        record = client.layer(key)
        return f"in the store, {plural(record.entries, 'file')}, {size_text(record.size)}" if record else ""
    stone = client.eviction(key)
    if stone is not None:
        return f"evicted on {day(stone.evicted)}: {stone.reason}"
    return "no longer in the store"
