"""`sandboxfile cache`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandboxfile.cli.console import columns
from sandboxfile.cli.exits import DONE, FAILED
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural, size_text
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.store.accounting import Account
    from sandboxfile.store.consistency import Checked
    from sandboxfile.store.gc import Verdict
    from sandboxfile.store.sweep import Swept

DESCRIPTION = """Show how much the store holds (du, the default), free what no snapshot and no recent
build needs, and what killed builds left (gc), or prove that the store is as it should be (check).
What a snapshot, a volume or anything that runs needs is never freed. SIZE is a number of bytes
with a unit, such as 20GB. With -v, gc also says why the rest stays."""

_ACTIONS = ("du", "gc", "check")
_OWN: dict[str, tuple[str, ...]] = {
    "du": ("by",),
    "gc": ("all", "dry_run", "keep_days", "keep_bytes", "max_size", "min_free"),
    "check": ("full", "repair"),
}
MOST_VERDICTS = 20
"""Things that go and are named, without -v."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("action", metavar="ACTION", nargs="?", default="du", help="du (default), gc or check")
    add("--by", metavar="WHAT", default=None, help="du: by kind (default), environment, group or age")
    add("--all", action="store_true", default=False, help="gc: forget every snapshot first, and keep nothing")
    add("--dry-run", action="store_true", default=False, help="gc: say what would be freed, free nothing")
    add(
        "--keep-days", metavar="N", type=float, default=None, help="gc: keep what was used in the last N days"
    )
    add(
        "--keep-bytes",
        metavar="SIZE",
        type=_size,
        default=None,
        help="gc: free no more by age once the store is down to SIZE",
    )
    add(
        "--max-size",
        metavar="SIZE",
        type=_size,
        default=None,
        help="gc: also free recent things, the longest unused first, until the store is down to SIZE",
    )
    add(
        "--min-free",
        metavar="SIZE",
        type=_size,
        default=None,
        help="gc: the same, until SIZE is free on the disk",
    )
    add("--full", action="store_true", default=False, help="check: read and hash every byte")
    add("--repair", action="store_true", default=False, help="check: put right what can be")


def execute(invocation: Invocation) -> int:
    """Show, free or check."""
    args = invocation.args
    _check_usage(args)

    async def work(client: AsyncClient) -> int:
        if args.action == "du":
            _print_usage(invocation, await client.disk_usage(args.by or "kind"))
            return DONE
        if args.action == "check":
            return _print_checked(invocation, await client.check_store(full=args.full, repair=args.repair))
        if args.all:
            for snapshot in client.stored_snapshots():
                await client.remove_snapshot(snapshot.slug)
        swept = await client.gc(
            keep_days=0.0 if args.all else args.keep_days,
            keep_bytes=args.keep_bytes or 0,
            max_size=args.max_size,
            min_free=args.min_free,
            dry_run=args.dry_run,
        )
        _print_swept(invocation, swept)
        return DONE

    return invocation.run(work)


def _check_usage(args: argparse.Namespace) -> None:
    if args.action not in _ACTIONS:
        raise UsageError(f"`cache` cannot `{args.action}`", hint="it knows du, gc and check")
    for action, names in _OWN.items():
        given = [name for name in names if getattr(args, name) not in (None, False)]
        if action != args.action and given:
            option = f"--{given[0].replace('_', '-')}"
            raise UsageError(f"`{option}` belongs to `cache {action}`")
    others = [name for name in _OWN["gc"] if name != "all" and getattr(args, name) not in (None, False)]
    if args.all and others:
        raise UsageError("`--all` keeps nothing, so it stands alone")
    if args.keep_days is not None and not 0 <= args.keep_days < float("inf"):
        raise UsageError(f"`--keep-days {args.keep_days:g}` is no number of days")


def _size(text: str) -> int:
    """Bytes from a size as the Sandboxfile has it: an argparse type."""
    from sandboxfile.spec import words
    from sandboxfile.spec.shape import Unfit

    try:
        return words.size(text)
    except Unfit:
        raise argparse.ArgumentTypeError(f"`{text}` is no size such as 500MB or 20GB") from None


def _print_usage(invocation: Invocation, account: Account) -> None:
    invocation.progress.close()
    console = invocation.console
    if console.json:
        rows: list[dict[str, Any]] = [
            {
                "name": row.name,
                "layers": row.layers,
                "packages": row.packages,
                "size": row.size,
                "shared": row.shared,
                "used": row.used or None,
            }
            for row in account.rows
        ]
        console.document({"by": account.by, "rows": rows, "total": account.total})
        return
    head = (account.by.upper(), "LAYERS", "PACKAGES", "SIZE", "SHARED", "LAST USED")
    table = [
        (
            row.name,
            str(row.layers or "-"),
            str(row.packages or "-"),
            size_text(row.size),
            size_text(row.shared) if row.shared else "-",
            _day(row.used),
        )
        for row in account.rows
    ]
    table.append(("total", "", "", size_text(account.total), "", ""))
    console.data(_table(head, table))


def _print_swept(invocation: Invocation, swept: Swept) -> None:
    invocation.progress.close()
    args, console = invocation.args, invocation.console
    goes = [each for each in swept.garbage.verdicts if each.goes]
    stays = [each for each in swept.garbage.verdicts if not each.goes]
    total = swept.sizes.get("total", 0)
    if console.json:
        console.document(
            {
                "freed": dict(swept.sizes),
                "evicted": [_verdict_document(each) for each in goes],
                "kept": [_verdict_document(each) for each in stays],
            }
        )
    else:
        texts = {kind: size_text(size) for kind, size in swept.sizes.items() if size or kind == "total"}
        width = max(map(len, texts.values()), default=0)
        console.data(columns([(kind, text.rjust(width)) for kind, text in texts.items()]))
    word = "would go" if args.dry_run else "went"
    shown = goes if args.verbose else sorted(goes, key=lambda each: -each.size)[:MOST_VERDICTS]
    _say_verdicts(invocation, word, shown, len(goes))
    if args.verbose:
        _say_verdicts(invocation, "stays", stays, len(stays))
    console.say(f"{size_text(total)} {'would be freed' if args.dry_run else 'freed'}")


def _say_verdicts(invocation: Invocation, word: str, shown: Sequence[Verdict], count: int) -> None:
    if not shown:
        return
    rows = [(f"{word}:", each.kind, each.title, size_text(each.size), each.reason) for each in shown]
    text = columns(rows)
    if count > len(shown):
        text += f"\nand {count - len(shown)} more; -v names all"
    invocation.console.say(text)


def _verdict_document(verdict: Verdict) -> dict[str, object]:
    return {
        "kind": verdict.kind,
        "name": verdict.name,
        "title": verdict.title,
        "size": verdict.size,
        "reason": verdict.reason,
    }


def _print_checked(invocation: Invocation, checked: Checked) -> int:
    invocation.progress.close()
    console = invocation.console
    if console.json:
        console.document(
            {
                "problems": [_problem_document(each) for each in checked.problems],
                "repaired": [_problem_document(each) for each in checked.repaired],
                "leftovers": list(checked.leftovers),
                "checked": dict(checked.looked_at),
            }
        )
        return FAILED if checked.problems else DONE
    lines = [f"{each.kind} {each.name}: {each.text}; repaired by {each.remedy}" for each in checked.problems]
    if lines:
        console.data("\n".join(lines))
    for each in checked.repaired:
        console.say(f"repaired: {each.kind} {each.name}: {each.text}")
    if checked.leftovers:
        count = len(checked.leftovers)
        console.say(f"{plural(count, 'leftover')} of killed programs, which `sandboxfile cache gc` removes")
        if invocation.args.verbose:
            console.say("\n".join(f"  {each}" for each in checked.leftovers))
    what = ", ".join(plural(number, kind[:-1]) for kind, number in checked.looked_at.items())
    found = plural(len(checked.problems), "problem") if checked.problems else "no problems"
    console.say(f"{found} in {what}" if what else found)
    return FAILED if checked.problems else DONE


def _problem_document(problem: Any) -> dict[str, object]:
    return {
        "kind": problem.kind,
        "name": problem.name,
        "problem": problem.text,
        "remedy": str(problem.remedy),
    }


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Rows in columns; all but the first and the last are numbers, and stand to the right."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    last = len(head) - 1
    return columns(
        [
            tuple(
                cell if index in (0, last) else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *rows)
        ]
    )


def _day(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"
