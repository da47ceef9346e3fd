"""What happens to each node of a plan, and why, given what is there already.

Knows nothing of the world: what the store has, what it remembers and what was built last are arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sandboxfile.core.digest import Digest, Record
from sandboxfile.core.layer import LayerKey
from sandboxfile.core.units import plural
from sandboxfile.errors import PlanError, UsageError
from sandboxfile.plan.diff import records
from sandboxfile.plan.history import History
from sandboxfile.plan.model import (
    Action,
    ActionKind,
    Plan,
    PlannedCheck,
    PlannedFetch,
    PlannedLayer,
    Reason,
    Reconciled,
)
from sandboxfile.plan.wording import listing


def reconcile(
    plan: Plan,
    *,
    have: Collection[LayerKey],
    blobs: Collection[str],
    passed: Collection[Digest],
    published: bool = False,
    previous: Mapping[str, Record] | None = None,
    force: Collection[str] = (),
    evicted: Mapping[LayerKey, str] | None = None,
    sizes: Mapping[LayerKey, int] | None = None,
) -> Reconciled:
    """The actions of a plan, in the order of its layers; a layer's fetch stands before it.

    have:      keys of the layers that are committed
    blobs:     sha256 (hex) of the files that are in the store
    passed:    keys of the checks that are remembered as passed
    published: whether the snapshot is there
    previous:  `diff.records` of the plan that this environment was last built from, None before that
    force:     names of layers to build and of checks to run again
    evicted:   of layers that were there once and were taken out of the store, a sentence that says why
    sizes:     bytes of layers, where they are known

    Raises UsageError for a name in `force` that the plan does not have, PlanError when a layer of a
    snapshot base is not in the store.
    """
    names = [layer.name for layer in plan.layers] + [check.name for check in plan.checks]
    for name in force:
        if name not in names:
            from difflib import get_close_matches

            near = get_close_matches(name, names, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names)}"
            raise UsageError(f"nothing in this plan is called `{name}`", hint=hint)

    had = frozenset(have)
    history = History(plan, records(plan), previous)
    fetches = {fetch.layer: fetch for fetch in plan.fetches}
    stored = frozenset(blobs)
    actions: list[Action] = []
    built: list[str] = []
    for layer in plan.layers:
        action = _layer(layer, had, history, built, layer.name in force, evicted or {})
        if action.kind is ActionKind.BUILD:
            built.append(layer.name)
        if layer.name in fetches:
            actions.append(_fetch(fetches[layer.name], stored, action))
        actions.append(action)
    remembered = frozenset(passed)
    checks = [_check(check, remembered, history, check.name in force) for check in plan.checks]
    complete = not built and all(action.kind is ActionKind.REMEMBERED for action in checks)
    return Reconciled(plan, (*actions, *checks), published and complete, frozenset(force), sizes or {})


def first_miss(reconciled: Reconciled) -> Action | None:
    """The first layer that would be built or check that would run; None when everything is remembered."""
    misses = (ActionKind.BUILD, ActionKind.CHECK)
    return next((action for action in reconciled.actions if action.kind in misses), None)


def _layer(
    layer: PlannedLayer,
    have: frozenset[LayerKey],
    history: History,
    built: list[str],
    forced: bool,
    evicted: Mapping[LayerKey, str],
) -> Action:
    if layer.inherited:
        if layer.key not in have:
            raise PlanError(
                f"a layer of the base snapshot is not in the store ({layer.title})",
                span=layer.span,
                hint="build that snapshot again, or name another base",
            )
        return Action(layer.name, ActionKind.REUSE, Reason("inherited", "part of the base snapshot"))
    if forced:
        return Action(layer.name, ActionKind.BUILD, Reason("forced", "asked for by name"))
    if layer.key not in have:
        return Action(layer.name, ActionKind.BUILD, _why_build(layer, history, evicted.get(layer.key)))
    if layer.detached:
        if history.known and history.causes_below(layer.name):
            return Action(layer.name, ActionKind.PLACE, _why_place(layer, history))
        if built:
            text = f"placed on {listing(built)}, not rebuilt"
            return Action(layer.name, ActionKind.PLACE, Reason("placed", text))
    return Action(layer.name, ActionKind.REUSE, Reason("present", "already built"))


def _why_build(layer: PlannedLayer, history: History, evicted: str | None) -> Reason:
    lines = _lines(layer, history)
    if evicted is not None:
        # Whatever else changed: had it not been evicted, it would be there.
        return Reason("evicted", evicted, lines if history.before(layer.name) is not None else ())
    if not history.known:
        return Reason("no-record", "not built yet", lines)
    before = history.before(layer.name)
    if before is None:
        text = "new step" if layer.kind == "run" else _joined(lines) or "new layer"
        return Reason("no-record", text, lines)
    if lines:
        return Reason("definition-changed", _joined(lines), lines)
    if history.same_key(layer.name):
        return Reason("missing", "built before, but no longer in the store")
    what, names, phrases = _causes(history, layer.name)
    if layer.kind == "run":
        text = f"run again: {what} below it changed ({names})"
    else:
        text = f"{what} below changed: {', '.join(phrases)}"
    return Reason("parent-changed", text, phrases)


def _lines(layer: PlannedLayer, history: History) -> tuple[str, ...]:
    """The changes of a layer; what is done to packages that were there comes first."""
    lines = history.changes(layer.name)
    forced = [layer.forced[line] for line in lines if line in layer.forced]
    return (*forced, *(line for line in lines if line not in layer.forced))


def _joined(lines: tuple[str, ...]) -> str:
    return listing(lines, joint="; " if any(", " in line for line in lines) else ", ")


def _why_place(layer: PlannedLayer, history: History) -> Reason:
    what, _, phrases = _causes(history, layer.name)
    return Reason("placed", f"re-placed on the new {what}, not rebuilt", phrases)


def _causes(history: History, node: str) -> tuple[str, str, tuple[str, ...]]:
    """What changed below a node: a word for all of it, the names, and a phrase for each."""
    causes = history.causes_below(node)
    kinds = {cause.kind for cause in causes}
    if kinds and kinds <= {"base", "apt", "pip"}:
        what = "base" if kinds == {"base"} else "packages"
    elif kinds == {"files"}:
        what = "files"
    elif kinds == {"run"}:
        what = "steps"
    else:
        what = "layers"
    names = [cause.name if cause.how != "removed" else f"{cause.name} removed" for cause in causes]
    return what, listing(names) or "order", tuple(f"{c.name} was {c.how}" for c in causes)


def _fetch(fetch: PlannedFetch, blobs: frozenset[str], layer: Action) -> Action:
    if layer.kind in (ActionKind.REUSE, ActionKind.PLACE):
        return Action(fetch.name, ActionKind.SKIP, Reason("present", f"{fetch.layer} is already built"))
    missing = [item for item in fetch.items if item[0] not in blobs]
    total = len(fetch.items)
    if not missing:
        held = "the file is" if total == 1 else f"all {total} files are"
        return Action(fetch.name, ActionKind.REUSE, Reason("present", f"{held} in the store"))
    if len(missing) == total:
        text = f"{plural(total, 'file')} to fetch"
    else:
        text = f"{len(missing)} of {total} files to fetch"
    cost = sum(size for _, size, _ in missing)
    names = tuple(f"+ {name}" for _, _, name in missing)
    return Action(fetch.name, ActionKind.FETCH, Reason("missing", text, names), cost)


def _check(check: PlannedCheck, passed: frozenset[Digest], history: History, forced: bool) -> Action:
    if forced:
        return Action(check.name, ActionKind.CHECK, Reason("forced", "asked for by name"))
    if check.key in passed:
        return Action(check.name, ActionKind.REMEMBERED, Reason("present", "passed before"))
    return Action(check.name, ActionKind.CHECK, _why_check(check, history))


def _why_check(check: PlannedCheck, history: History) -> Reason:
    if not history.known:
        return Reason("no-record", "not run yet")
    before = history.before(check.name)
    if before is None:
        return Reason("no-record", "new check")
    lines = history.changes(check.name)
    causes = history.causes_below(None)
    if lines:
        only = "the check changed" if causes else "only the check changed"
        return Reason("definition-changed", only, lines)
    if causes:
        _, names, phrases = _causes(history, check.name)
        return Reason("parent-changed", f"the environment changed: {names}", phrases)
    configured = history.config_changes()
    if configured:
        return Reason("parent-changed", f"the configuration changed: {listing(configured)}", configured)
    return Reason("no-record", "did not pass yet")
