"""`sandboxfile verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandboxfile.cli.exits import DONE, FAILED
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.build.rebuild import Finding, LayerRebuilt

DESCRIPTION = """Run every check of the built environment again, also those that are remembered as
passed. Prints the name of each check that passed; exit 1 when one fails. With --rebuild, build every
layer again in a store of its own and compare the bytes instead; exit 1 when a layer differs by more
than what no rule can make equal."""

_MOST = 20


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--rebuild",
        action="store_true",
        default=False,
        help="build every layer again elsewhere and compare the bytes",
    )


def execute(invocation: Invocation) -> int:
    """Run the checks, or build again."""
    return _rebuild(invocation) if invocation.args.rebuild else _check(invocation)


def _check(invocation: Invocation) -> int:
    console = invocation.console

    async def work(client: AsyncClient) -> int:
        names = await client.verify(invocation.load(client))
        invocation.progress.close()
        if console.json:
            console.document({"passed": list(names)})
        elif names:
            console.data("\n".join(names))
        console.say(f"{plural(len(names), 'check')} passed" if names else "there are no checks")
        return DONE

    return invocation.run(work)


def _rebuild(invocation: Invocation) -> int:
    console = invocation.console

    async def work(client: AsyncClient) -> int:
        layers = await client.rebuild(invocation.load(client))
        invocation.progress.close()
        wrong = [layer for layer in layers if not layer.equal and not layer.declared]
        if console.json:
            console.document({"layers": [_document(layer) for layer in layers]})
        else:
            from sandboxfile.cli.console import columns

            console.data(columns([(layer.layer, _verdict(layer), layer.title) for layer in layers]))
        for layer in layers:
            if layer.findings:
                console.complain("\n".join(_told(layer)))
        equal = sum(layer.equal for layer in layers)
        console.say(f"{equal} of {plural(len(layers), 'layer')} equal to the byte")
        return FAILED if wrong else DONE

    return invocation.run(work)


def _verdict(layer: LayerRebuilt) -> str:
    if layer.equal:
        return "equal"
    return "differs as declared" if layer.declared else "DIFFERS"


def _told(layer: LayerRebuilt) -> Sequence[str]:
    """What differs in a layer, for people."""
    lines = [f"{layer.layer}: {plural(len(layer.findings), 'path')} differ"]
    for finding in layer.findings[:_MOST]:
        declared = ", which no rule can make equal" if finding.declared else ""
        lines.append(f"  /{finding.difference.path}: {_what(finding)} ({finding.step}){declared}")
        lines += [f"    {line}" for line in finding.report]
    if len(layer.findings) > _MOST:
        lines.append(f"  and {len(layer.findings) - _MOST} more; --json has them all")
    return lines


def _what(finding: Finding) -> str:
    difference = finding.difference
    if difference.first is None:
        return "only in the second build"
    return "only in the first build" if difference.second is None else difference.detail


def _document(layer: LayerRebuilt) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "key": layer.key,
        "equal": layer.equal,
        "declared": layer.declared,
        "diff_ids": [layer.first, layer.second],
        "differences": [
            {
                "path": f"/{finding.difference.path}",
                "kinds": [change.value for change in finding.difference.changes],
                "detail": finding.difference.detail,
                "step": finding.step,
                "declared": finding.declared,
                "report": list(finding.report),
            }
            for finding in layer.findings
        ],
    }
