"""`sandboxfile verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient

DESCRIPTION = """Run every check of the built environment again, also those that are remembered as
passed. Prints the name of each check that passed; exit 1 when one fails."""


def configure(parser: Parser) -> None:
    """The verb has no arguments of its own."""


def execute(invocation: Invocation) -> int:
    """Run the checks."""
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
