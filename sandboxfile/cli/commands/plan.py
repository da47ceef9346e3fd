"""`sandboxfile plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient

DESCRIPTION = """Show for every layer, download and check what a build would do, and why. Nothing
is built, and the lock is not changed: what it does not answer yet is reported. The number in apt-2
and pip-2 is that of the lock's package group. Sizes are of built layers; downloads have lines of
their own."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--force",
        metavar="LAYER",
        action="append",
        default=(),
        help="plan to build this layer again (repeatable)",
    )


def execute(invocation: Invocation) -> int:
    """Print the plan."""
    args, console = invocation.args, invocation.console

    async def work(client: AsyncClient) -> int:
        from sandboxfile.plan.render import render_json, render_text

        reconciled = await client.plan(
            invocation.load(client), locked=args.locked, offline=args.offline, force=tuple(args.force)
        )
        invocation.progress.close()
        console.data(
            render_json(reconciled) if console.json else render_text(reconciled, colour=console.colour_out)
        )
        return DONE

    return invocation.run(work)
