"""`sandboxfile up`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser, duration, port_number
from sandboxfile.cli.sandboxed import SANDBOX_DEFAULTS, add_target, sandbox_command
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient, SnapshotInfo

DESCRIPTION = """Start the environment's `start` command in a fresh sandbox, wait until its port
answers, and print the URL on this machine. Its output follows on stderr. Ctrl-C, SIGTERM, the
timeout or the command's own end stops everything; in the last case the exit code is the
command's. With --detach, print the URL and the sandbox's id and leave it running: `sandboxfile
sandboxes` shows it, its output and its end."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add_target(parser)
    add = parser.add_argument
    add("--port", metavar="N", type=port_number, help="the port on this machine (default: a free one)")
    add("--timeout", metavar="TIME", type=duration, help="stop after this time, instead of the `start` key's")
    add("--detach", action="store_true", help="leave the sandbox running, and print its id as well")
    parser.set_defaults(**SANDBOX_DEFAULTS, port=None, detach=False)


def execute(invocation: Invocation) -> int:
    """Start, expose, follow, stop."""
    args = invocation.args

    async def work(client: AsyncClient) -> int:
        from sandboxfile.cli.service import Service

        snapshot = await invocation.target(client, args.target)
        start = _start_of(snapshot)
        port, given = start.get("port"), args.timeout or start.get("timeout")
        timeout = float(given) if isinstance(given, (int, float)) else None
        if args.detach:
            from sandboxfile.cli.leaving import leave_running

            return await leave_running(
                invocation, client, snapshot, start, host_port=args.port, timeout=timeout
            )
        command = sandbox_command(("/bin/sh", "-c", str(start["command"])), args, snapshot.config)
        sandbox = await client.start(snapshot)
        try:
            service = Service(
                invocation,
                sandbox,
                command,
                port=port if isinstance(port, int) else None,
                host_port=args.port or 0,
                timeout=timeout,
                announce=lambda url: client.announce(sandbox, url),
            )
            return await service.serve(snapshot.slug)
        finally:
            await sandbox.close()

    return invocation.run(work)


def _start_of(snapshot: SnapshotInfo) -> Mapping[str, object]:
    start = snapshot.config.get("start")
    if not isinstance(start, Mapping) or not start.get("command"):
        raise UsageError(
            f"`{snapshot.slug}` has no `start` command",
            hint="add `start: {command: ..., port: ...}` to the Sandboxfile, or use `sandboxfile run`",
        )
    return start
