"""`sandboxfile sandboxes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.console import columns
from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.store.sandboxes import SandboxInfo

DESCRIPTION = """List the sandboxes that run, newest first (the default): those of programs, of `run`,
`shell` and `up`, and detached ones. Show what the command of a detached one has written (`logs`),
or end some (`kill`). `run` and `shell` reach into a detached one by its id."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "action", metavar="ACTION", nargs="?", default="list", help="list (default), logs or kill"
    )
    parser.add_argument("ids", metavar="ID", nargs="*", help="ids of sandboxes", default=[])


def execute(invocation: Invocation) -> int:
    """List, show the output, or end."""
    action, ids = invocation.args.action, tuple(dict.fromkeys(invocation.args.ids))
    if action == "list":
        if ids:
            raise UsageError("`sandboxes list` takes no argument")
        return _list(invocation)
    if action == "logs":
        if len(ids) != 1:
            raise UsageError("`sandboxes logs` takes one id", hint="`sandboxfile sandboxes` lists them")
        return _logs(invocation, ids[0])
    if action == "kill":
        if not ids:
            raise UsageError("`sandboxes kill` needs an id", hint="`sandboxfile sandboxes` lists them")
        return _kill(invocation, ids)
    raise UsageError(f"`sandboxes` cannot `{action}`", hint="it knows list, logs and kill")


def _list(invocation: Invocation) -> int:
    console = invocation.console
    found = invocation.client().running_sandboxes()
    if console.json:
        from dataclasses import asdict

        console.document([asdict(info) for info in found])
    elif found:
        rows = [("ID", "ROOT", "CREATED", "ENDS", "OF", "URL")]
        rows += [
            (
                info.id,
                info.root,
                _time_text(info.created_at),
                _time_text(info.ends_at) if info.ends_at is not None else "-",
                _owner_text(info),
                info.url or "-",
            )
            for info in found
        ]
        console.data(columns(rows))
    else:
        console.say("no sandbox runs")
    return DONE


def _logs(invocation: Invocation, sandbox: str) -> int:
    console = invocation.console

    async def work(client: AsyncClient) -> int:
        connected = await client.sandboxes.connect(sandbox)
        text = (await connected.logs()).decode("utf-8", "replace")
        if console.json:
            console.document({"id": sandbox, "log": text})
        else:
            console.data(text)
        return DONE

    return invocation.run(work)


def _kill(invocation: Invocation, ids: tuple[str, ...]) -> int:
    console = invocation.console

    async def work(client: AsyncClient) -> int:
        # All are reached before the first ends, so that a misspelt one ends nothing.
        for sandbox in [await client.sandboxes.connect(each) for each in ids]:
            await sandbox.kill()
        if console.json:
            console.document({"killed": list(ids)})
        else:
            console.data("\n".join(ids))
        return DONE

    return invocation.run(work)


def _owner_text(info: SandboxInfo) -> str:
    return "detached" if info.detached else f"process {info.client}"


def _time_text(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
