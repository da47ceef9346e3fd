"""`sandboxfile snapshots`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.console import columns
from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import size_text
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient, SnapshotInfo

DESCRIPTION = """List the snapshots in the store, newest first (the default), show one, or remove
some. TARGET is a slug or a name. The layers of a removed snapshot go with the next `sandboxfile
cache gc`."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "action", metavar="ACTION", nargs="?", default="list", help="list (default), show or rm"
    )
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="slugs or names", default=[])


def execute(invocation: Invocation) -> int:
    """List, show or remove."""
    action, targets = invocation.args.action, tuple(invocation.args.targets)
    if action == "list":
        if targets:
            raise UsageError("`snapshots list` takes no argument", hint="`snapshots show TARGET` shows one")
        return _list(invocation)
    if action == "show":
        if len(targets) != 1:
            raise UsageError(
                "`snapshots show` takes one slug or name", hint="`sandboxfile snapshots` lists them"
            )
        return _show(invocation, targets[0])
    if action == "rm":
        if not targets:
            raise UsageError("`snapshots rm` needs a slug or name", hint="`sandboxfile snapshots` lists them")
        return _remove(invocation, targets)
    raise UsageError(f"`snapshots` cannot `{action}`", hint="it knows list, show and rm")


def _list(invocation: Invocation) -> int:
    console = invocation.console
    found = invocation.client().stored_snapshots()
    if console.json:
        console.document([_document(info) for info in found])
    elif found:
        rows = [("SLUG", "NAME", "SIZE", "LAYERS", "CREATED", "USED")]
        rows += [
            (
                info.slug,
                info.name,
                size_text(info.size),
                str(len(info.layers)),
                _time_text(info.created),
                _time_text(info.used),
            )
            for info in found
        ]
        console.data(columns(rows))
    else:
        console.say("there are no snapshots; `sandboxfile build` makes one")
    return DONE


def _show(invocation: Invocation, target: str) -> int:
    console = invocation.console
    info = invocation.client().snapshot(target)
    document = _document(info)
    if console.json:
        console.document(document)
        return DONE
    import json

    rows: list[tuple[str, ...]] = [
        ("slug", info.slug),
        ("name", info.name),
        ("key", info.key),
        ("size", size_text(info.size)),
        ("created", _time_text(info.created)),
        ("used", _time_text(info.used)),
    ]
    rows += [("layers" if index == 0 else "", key) for index, key in enumerate(info.layers)]
    rows += [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(info.config.items())]
    console.data(columns(rows))
    return DONE


def _remove(invocation: Invocation, targets: tuple[str, ...]) -> int:
    console = invocation.console

    async def work(client: AsyncClient) -> int:
        # All are looked up before the first goes, so that a misspelt one removes nothing.
        slugs = list(dict.fromkeys(client.snapshot(target).slug for target in targets))
        for slug in slugs:
            await client.remove_snapshot(slug)
        if console.json:
            console.document({"removed": slugs})
        else:
            console.data("\n".join(slugs))
        console.say("removed; `sandboxfile cache gc` frees the layers that nothing else needs")
        return DONE

    return invocation.run(work)


def _document(info: SnapshotInfo) -> dict[str, object]:
    return {
        "slug": info.slug,
        "name": info.name,
        "key": info.key,
        "layers": list(info.layers),
        "config": dict(info.config),
        "size": info.size,
        "created": info.created,
        "used": info.used,
    }


def _time_text(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"
