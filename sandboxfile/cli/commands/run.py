"""`sandboxfile run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.cli.sandboxed import (
    RUNNING,
    add_sandbox_options,
    add_target,
    is_sandbox,
    sandbox_command,
    target_sandbox,
)
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient

DESCRIPTION = """Run a command in a fresh sandbox that boots from a snapshot, and exit with its
exit code. stdin, stdout and stderr are passed through; on a terminal the command gets one of its
own. What it writes is thrown away with the sandbox."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add_target(parser, RUNNING)
    add_sandbox_options(parser)


def execute(invocation: Invocation) -> int:
    """Boot, run, pass everything through."""
    args = invocation.args
    if not invocation.command:
        raise UsageError(
            "`run` needs a command", hint="write it after `--`: `sandboxfile run . -- python3 --version`"
        )
    argv = tuple(invocation.command)
    if not is_sandbox(args.target):
        _launch_ahead(args.engine, args.home)

    async def work(client: AsyncClient) -> int:
        from sandboxfile.cli.attach import attach

        async with target_sandbox(invocation, client) as (sandbox, config):
            return await attach(invocation, sandbox, sandbox_command(argv, args, config))

    return invocation.run(work)


def _launch_ahead(engine: str, home: str | None) -> None:
    """Have the engine's helper start while we import what talks to it: that takes as long as the boot."""
    if engine != "linux":
        return
    from sandboxfile.engines.linux.helper_start import launch_ahead
    from sandboxfile.inputs.settings import load_settings

    settings = load_settings(os.environ, home=Path(home).absolute() if home else None)
    launch_ahead(str(settings.home.absolute()))
