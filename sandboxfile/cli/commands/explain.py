"""`sandboxfile explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.cli.safe import safe
from sandboxfile.core.units import plural, size_text
from sandboxfile.errors import StoreError, UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.build.why import KnownLayer
    from sandboxfile.plan.model import Plan, PlannedLayer, Reconciled

DESCRIPTION = """Show what a layer is made of, what happens to it and why, what changed since the
last build, its size, and the rules that make its bytes equal. LAYER is a name or the beginning of
a key, as in `sandboxfile plan`; without it, everything is explained. The beginning of a key may
also be that of a layer of an earlier build or of another environment, there or evicted. BUILD is
the number of an earlier build of this environment, or its slug; `--builds` lists what is
remembered."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("layer", metavar="LAYER", nargs="?", default=None, help="a layer or a check")
    parser.add_argument(
        "--log", action="store_true", default=False, help="print the full log of the layer's build"
    )
    parser.add_argument(
        "--since", metavar="BUILD", default=None, help="say what changed since this build, not the last one"
    )
    parser.add_argument(
        "--build", metavar="BUILD", default=None, help="explain what this earlier build did, and why"
    )
    parser.add_argument(
        "--builds", action="store_true", default=False, help="list the builds that are remembered"
    )


def execute(invocation: Invocation) -> int:
    """Explain, or print a log."""
    args, console = invocation.args, invocation.console
    if args.log and args.layer is None:
        raise UsageError("`--log` needs a layer", hint="`sandboxfile plan` names them")

    if sum(map(bool, (args.log, args.since, args.build, args.builds))) > 1:
        raise UsageError("`--log`, `--since`, `--build` and `--builds` exclude each other")
    if args.builds and args.layer is not None:
        raise UsageError("`--builds` lists whole builds", hint="leave the layer out, or use `--build`")

    async def work(client: AsyncClient) -> int:
        if args.builds or args.build:
            return _past(invocation, client)
        reconciled = await client.plan(invocation.load(client), locked=args.locked, since=args.since)
        invocation.progress.close()
        plan = reconciled.plan
        names = [layer.name for layer in plan.layers] + [check.name for check in plan.checks]
        if args.layer is not None:
            known = _elsewhere(client, plan, args.layer)
            if known is not None:
                return _explain_known(invocation, client, known, plan)
            names = [_name_of(reconciled, args.layer)]
        if args.log:
            _print_log(invocation, client, plan, names[0])
            return DONE
        texts, documents = [], []
        for name in names:
            layer = next((each for each in plan.layers if each.name == name), None)
            text = render_explain(reconciled, name).rstrip("\n")
            texts.append(_with_built(client, layer, text) if layer else text)
            documents.append(_document(client, reconciled, name, layer))
        if console.json:
            console.document(documents[0] if args.layer else documents)
        else:
            console.data(
                "\n\n".join(texts + _rule_text([layer for layer in plan.layers if layer.name in names]))
            )
        return DONE

    from sandboxfile.plan.render import render_explain

    return invocation.run(work)


def _past(invocation: Invocation, client: AsyncClient) -> int:
    """List the builds that are remembered, or explain one."""
    from sandboxfile.cli import past

    args, console = invocation.args, invocation.console
    project = invocation.load(client)
    if args.builds:
        builds = client.builds(project)
        if console.json:
            console.document([past.build_document(build) for build in builds])
        elif builds:
            console.data(past.builds_text(builds))
        else:
            console.say("no build of this environment is remembered")
        return DONE
    build = client.past_build(project, args.build)
    names = past.node_names(build, args.layer)
    if console.json:
        document = past.build_document(build)
        document["actions"] = [each for each in document["actions"] if each["name"] in names]
        console.document(document)
    else:
        console.data(past.past_text(client, build, names))
    return DONE


def _elsewhere(client: AsyncClient, plan: Plan, wanted: str) -> KnownLayer | None:
    """The layer that the beginning of a key stands for, when it is none of this plan's."""
    digits = wanted.removeprefix("sha256:")
    keys: dict[str, str] = {layer.name: layer.key for layer in plan.layers}
    keys |= {check.name: check.key for check in plan.checks}
    if wanted in keys or any(key.partition(":")[2].startswith(digits) for key in keys.values()):
        return None
    return client.find_layer(wanted)


def _explain_known(invocation: Invocation, client: AsyncClient, known: KnownLayer, plan: Plan) -> int:
    from sandboxfile.cli import past

    if invocation.args.log:
        _print_log_of(invocation, client, known.name, known.key)
    elif invocation.console.json:
        invocation.console.document(past.known_document(client, known, plan))
    else:
        invocation.console.data(past.known_text(client, known, plan))
    return DONE


def _name_of(reconciled: Reconciled, wanted: str) -> str:
    """The name of the layer or check that a name or the beginning of a key stands for. UsageError."""
    from sandboxfile.plan.render import render_explain

    # The explanation begins with the name.
    return render_explain(reconciled, wanted).split(maxsplit=1)[0]


def _print_log(invocation: Invocation, client: AsyncClient, plan: Plan, name: str) -> None:
    keys: dict[str, str] = {layer.name: layer.key for layer in plan.layers}
    keys |= {check.name: check.key for check in plan.checks}
    _print_log_of(invocation, client, name, keys[name])


def _print_log_of(invocation: Invocation, client: AsyncClient, name: str, key: str) -> None:
    log = client.layer_log(key)
    if log is None:
        raise StoreError(
            f"no log is kept for `{name}`",
            hint="it gets one when it is built here; `sandboxfile build --force` builds it again",
        )
    if invocation.console.json:
        invocation.console.document({"name": name, "key": key, "log": log})
    else:
        # A log may be sent to a file as it was written, but not to a terminal.
        invocation.console.data(safe(log) if invocation.console.out.isatty() else log)


def _with_built(client: AsyncClient, layer: PlannedLayer, text: str) -> str:
    """An explanation, and what is known of the layer as it was built."""
    record = client.layer(layer.key)
    rows = [("built", "not yet")]
    if record is not None:
        rows = [("built", f"{plural(record.entries, 'file')}, {size_text(record.size)}")]
        if record.diff_id:
            rows.append(("diff_id", record.diff_id))
        rows += [("differs", f"{safe(path)} (no rule can make it equal)") for path in record.unreproducible]
    # Under the columns that are there: `  key        sha256:…`.
    width = next((line.index("sha256:") for line in text.splitlines() if line.startswith("  key ")), 11)
    return "\n".join([text, *(f"  {name}".ljust(width) + value for name, value in rows)])


def _document(
    client: AsyncClient, reconciled: Reconciled, name: str, layer: PlannedLayer | None
) -> dict[str, object]:
    from sandboxfile.plan.render import plan_document

    plan = plan_document(reconciled)
    document: dict[str, object] = next(
        each for kind in ("layers", "checks") for each in plan[kind] if each["name"] == name
    )
    if layer is not None:
        from sandboxfile.plan.diff import definition_record

        record = client.layer(layer.key)
        definition = definition_record(layer.definition) if layer.definition is not None else None
        document["definition"] = definition["definition"] if definition else None
        document["built"] = (
            {
                "size": record.size,
                "entries": record.entries,
                "diff_id": record.diff_id,
                "created": record.created,
                "unreproducible": list(record.unreproducible),
            }
            if record
            else None
        )
    return document


def _rule_text(layers: list[PlannedLayer]) -> list[str]:
    """The normalisation rules, when the layers that are explained are subject to them."""
    from sandboxfile.core.normalise import RULES, TIME_RULES

    versions = {str(getattr(layer.definition, "normalisation", "")) for layer in layers} - {""}
    if not versions:
        return []
    lines = [f"normalisation rules ({', '.join(sorted(versions))})"]
    return [
        "\n".join(
            [*lines, *(f"  {rule.describe()}" for rule in RULES), *(f"  {rule}" for rule in TIME_RULES)]
        )
    ]
