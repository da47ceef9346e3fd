"""`sandboxfile build`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.cli.safe import safe
from sandboxfile.core.units import plural, seconds_text
from sandboxfile.errors import UsageError

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient, BuildResult

DESCRIPTION = """Build the layers that changed, run the checks that are not known to pass, publish
the snapshot, and print its slug as the last line. The lock is written when there is none or it
lacks something."""
MOST_CHANGES = 20
"""Changes of the lock that are shown."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--force", metavar="LAYER", action="append", default=[], help="build this layer again (repeatable)"
    )
    parser.add_argument(
        "--expect-cached",
        action="store_true",
        default=False,
        help="build and run nothing: exit 1 at the first layer or check that is not there, and say why",
    )


def execute(invocation: Invocation) -> int:
    """Build, and print the slug."""
    args, console = invocation.args, invocation.console

    if args.force and args.expect_cached:
        raise UsageError("`--force` and `--expect-cached` exclude each other")
    client = invocation.client()
    # Without the event loop: a build that finds nothing changed is over before asyncio would be imported.
    same = None if args.force else invocation.unchanged(client)
    if same is not None:
        _print(invocation, same)
        return DONE

    async def work(client: AsyncClient) -> int:
        project = invocation.load(client)
        result = await client.build(
            project,
            locked=args.locked,
            offline=args.offline,
            force=tuple(args.force),
            expect_cached=args.expect_cached,
        )
        invocation.progress.close()
        if result.lock_changes:
            console.say(_lock_text(project.lock_path.name, result.lock_changes))
        _print(invocation, result)
        return DONE

    return invocation.run(work, client=client)


def _print(invocation: Invocation, result: BuildResult) -> None:
    console = invocation.console
    console.say(_summary(result))
    if console.json:
        console.document(_document(result))
    else:
        console.data(result.slug)


def _lock_text(name: str, changes: tuple[str, ...]) -> str:
    lines = [f"wrote {name}", *(f"  {safe(change)}" for change in changes[:MOST_CHANGES])]
    if len(changes) > MOST_CHANGES:
        lines.append(f"  and {len(changes) - MOST_CHANGES} more")
    return "\n".join(lines)


def _summary(result: BuildResult) -> str:
    parts = []
    if result.built:
        parts.append(f"{plural(len(result.built), 'layer')} built")
    if result.reused:
        reused = len(result.reused)
        parts.append(f"{reused} reused" if result.built else f"{plural(reused, 'layer')} reused")
    if result.checked:
        parts.append(f"{plural(len(result.checked), 'check')} passed")
    if not result.built and not result.checked:
        parts.insert(0, "nothing changed")
    return f"{', '.join(parts)} ({seconds_text(result.seconds)})"


def _document(result: BuildResult) -> dict[str, object]:
    return {
        "slug": result.slug,
        "built": list(result.built),
        "reused": list(result.reused),
        "checked": list(result.checked),
        "seconds": round(result.seconds, 3),
        "lock_changes": list(result.lock_changes),
    }
