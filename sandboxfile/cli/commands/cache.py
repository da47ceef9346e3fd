"""`sandboxfile cache`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sandboxfile.cli.console import columns
from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import size_text
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient

DESCRIPTION = """Show how much the store holds, by kind (du, the default), or free what no
snapshot and no recent build needs, and what killed builds left (gc)."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("action", metavar="ACTION", nargs="?", default="du", help="du (default) or gc")
    add("--all", action="store_true", default=False, help="gc: forget every snapshot first, and keep nothing")
    add("--dry-run", action="store_true", default=False, help="gc: say what would be freed, free nothing")
    add(
        "--keep-days", metavar="N", type=float, default=None, help="gc: keep what was used in the last N days"
    )


def execute(invocation: Invocation) -> int:
    """Show or free."""
    args = invocation.args
    if args.action not in {"du", "gc"}:
        raise UsageError(f"`cache` cannot `{args.action}`", hint="it knows du and gc")
    if args.action == "du" and (args.all or args.dry_run or args.keep_days is not None):
        raise UsageError("`--all`, `--dry-run` and `--keep-days` belong to `cache gc`")
    if args.all and (args.dry_run or args.keep_days is not None):
        raise UsageError("`--all` keeps nothing, so it stands alone")
    if args.keep_days is not None and not 0 <= args.keep_days < float("inf"):
        raise UsageError(f"`--keep-days {args.keep_days:g}` is no number of days")

    async def work(client: AsyncClient) -> int:
        if args.action == "du":
            _print(invocation, await client.disk_usage())
            return DONE
        if args.all:
            for snapshot in client.stored_snapshots():
                await client.remove_snapshot(snapshot.slug)
        keep_days = 0.0 if args.all else args.keep_days
        freed = await client.gc(keep_days=keep_days, dry_run=args.dry_run)
        _print(invocation, freed)
        total = freed.get("total", sum(freed.values()))
        word = "would be freed" if args.dry_run else "freed"
        invocation.console.say(f"{size_text(total)} {word}")
        return DONE

    return invocation.run(work)


def _print(invocation: Invocation, sizes: Mapping[str, int]) -> None:
    invocation.progress.close()
    console = invocation.console
    if console.json:
        console.document(dict(sizes))
        return
    texts = {kind: size_text(size) for kind, size in sizes.items()}
    width = max((len(text) for text in texts.values()), default=0)
    console.data(columns([(kind, text.rjust(width)) for kind, text in texts.items()]))
