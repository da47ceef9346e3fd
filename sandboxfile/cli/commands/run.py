"""`sandboxfile run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.cli.sandboxed import add_sandbox_options, add_target, sandbox_command
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import Client

DESCRIPTION = """Run a command in a fresh sandbox that boots from a snapshot, and exit with its
exit code. stdin, stdout and stderr are passed through; on a terminal the command gets one of its
own. What it writes is thrown away with the sandbox."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add_target(parser)
    add_sandbox_options(parser)


def execute(invocation: Invocation) -> int:
    """Boot, run, pass everything through."""
    args = invocation.args
    if not invocation.command:
        raise UsageError(
            "`run` needs a command", hint="write it after `--`: `sandboxfile run . -- python3 --version`"
        )
    argv = tuple(invocation.command)

    async def work(client: Client) -> int:
        from sandboxfile.cli.attach import attach

        snapshot = await invocation.target(client, args.target)
        command = sandbox_command(argv, args, snapshot.config)
        sandbox = await client.start(snapshot, network=args.network)
        try:
            return await attach(invocation, sandbox, command)
        finally:
            await sandbox.close()

    return invocation.run(work)
