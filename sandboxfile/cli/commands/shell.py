"""`sandboxfile shell`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.cli.sandboxed import (
    RUNNING,
    SHELL,
    add_sandbox_options,
    add_target,
    sandbox_command,
    target_sandbox,
)

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient

DESCRIPTION = """Open a shell (bash if the environment has it, else sh) in a fresh sandbox that
boots from a snapshot. Without a terminal, the shell reads its commands from stdin. What it writes
is thrown away with the sandbox."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add_target(parser, RUNNING)
    add_sandbox_options(parser)


def execute(invocation: Invocation) -> int:
    """Boot and open the shell."""
    args = invocation.args

    async def work(client: AsyncClient) -> int:
        from sandboxfile.cli.attach import attach

        async with target_sandbox(invocation, client) as (sandbox, config):
            return await attach(invocation, sandbox, sandbox_command(SHELL, args, config))

    return invocation.run(work)
