"""`sandboxfile vendor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.cli.exits import DONE, FAILED
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural, size_text

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.build.result import VendorResult

DESCRIPTION = """Write the lock and every package that it names to PATH, and print PATH: a directory,
or one file when the name ends in `.tar`. Without PATH it is `sandboxfile.vendor` beside the lock, where
builds find it by themselves; elsewhere it is named with `--vendor PATH`. A build then needs no network.
Written again, only what changed in the lock is added and removed."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default=None, help="a directory, or a name ending in .tar"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        default=False,
        help="write nothing; exit 1 when a file is missing, damaged or not wanted any more",
    )


def execute(invocation: Invocation) -> int:
    """Write or compare."""
    args, console = invocation.args, invocation.console
    place = Path(args.path).absolute() if args.path else None

    async def work(client: AsyncClient) -> int:
        project = invocation.load(client)
        result = await client.vendor(
            project, place, check=args.check, locked=args.locked, offline=args.offline
        )
        invocation.progress.close()
        if console.json:
            console.document(_document(result))
        else:
            lines = _lines(result) if args.check else [result.path]
            if lines:
                console.data("\n".join(lines))
        console.say(_summary(result, check=args.check))
        return FAILED if args.check and result.changed else DONE

    return invocation.run(work)


def _lines(result: VendorResult) -> list[str]:
    marks = (("missing", result.added), ("damaged", result.damaged), ("not wanted", result.removed))
    return [f"{mark:<10}  {path}" for mark, paths in marks for path in paths]


def _summary(result: VendorResult, *, check: bool) -> str:
    whole = f"{plural(result.files, 'file')}, {size_text(result.size)}"
    if not result.changed:
        return f"{result.path} holds what the lock names ({whole})"
    counts = (
        (result.added, "missing" if check else "added"),
        (result.damaged, "damaged" if check else "replaced"),
        (result.removed, "not wanted" if check else "removed"),
    )
    found = ", ".join(f"{len(paths)} {word}" for paths, word in counts if paths)
    return f"{result.path}: {found}" if check else f"{found} in {result.path} ({whole})"


def _document(result: VendorResult) -> dict[str, object]:
    return {
        "path": result.path,
        "files": result.files,
        "size": result.size,
        "added": list(result.added),
        "damaged": list(result.damaged),
        "removed": list(result.removed),
    }
