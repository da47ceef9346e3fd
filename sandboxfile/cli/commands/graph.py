"""`sandboxfile graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient

DESCRIPTION = """Print the graph of layers, downloads and checks, as DOT (for Graphviz), as
Mermaid (for Markdown), or with --json as the plan's document."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        choices=("dot", "mermaid"),
        default="dot",
        help="dot (default) or mermaid",
    )


def execute(invocation: Invocation) -> int:
    """Print the graph."""
    args, console = invocation.args, invocation.console

    async def work(client: AsyncClient) -> int:
        from sandboxfile.plan import render

        reconciled = await client.plan(invocation.load(client), locked=args.locked)
        invocation.progress.close()
        if console.json:
            console.data(render.render_json(reconciled))
        else:
            console.data((render.render_dot if args.format == "dot" else render.render_mermaid)(reconciled))
        return DONE

    return invocation.run(work)
