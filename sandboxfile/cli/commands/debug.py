"""`sandboxfile debug`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.cli.sandboxed import SHELL

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient

DESCRIPTION = """Open a shell in the state that this project's last failed step or check left
behind, with the same environment, user and directory. The command that failed is in
$SANDBOXFILE_COMMAND; what you change is thrown away with the shell."""


def configure(parser: Parser) -> None:
    """The verb has no arguments of its own."""


def execute(invocation: Invocation) -> int:
    """Open the shell."""
    console = invocation.console

    async def work(client: AsyncClient) -> int:
        import shlex

        from sandboxfile.cli.attach import attach
        from sandboxfile.cli.safe import safe
        from sandboxfile.declared import replace

        sandbox, failed, message = await client.debug(invocation.load(client))
        try:
            line = shlex.join(failed.argv)
            invocation.progress.close()
            console.say(f"{safe(message)}; it ran as {failed.user} in {failed.cwd}:\n  {safe(line)}")
            console.say('run it again with: eval "$SANDBOXFILE_COMMAND"')
            env = {**failed.env, "SANDBOXFILE_COMMAND": line}
            return await attach(invocation, sandbox, replace(failed, argv=SHELL, env=env, timeout=None))
        finally:
            await sandbox.close()

    return invocation.run(work)
