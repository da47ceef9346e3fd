"""`sandboxfile diff`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandboxfile.cli.console import columns
from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural, size_text

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.build.snapshotdiff import PackageChange, SnapshotDiff
    from sandboxfile.core.manifest import Difference

DESCRIPTION = """Show what differs from snapshot A to snapshot B: packages added, removed and moved to
another version, files, configuration, and size. A and B are slugs or names. A time alone is no
difference."""

_MOST = 20


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("first", metavar="A", help="a slug, or a name (its newest snapshot)")
    parser.add_argument("second", metavar="B", help="the one to compare it with")
    parser.add_argument(
        "--files", action="store_true", default=False, help="list every file, not only the first few"
    )


def execute(invocation: Invocation) -> int:
    """Compare two snapshots."""
    console = invocation.console
    args = invocation.args

    async def work(client: AsyncClient) -> int:
        found = await client.diff(args.first, args.second)
        invocation.progress.close()
        if console.json:
            console.document(_document(found))
            return DONE
        lines = _lines(found, None if args.files else _MOST)
        if lines:
            console.data("\n".join(lines))
        console.say(_summary(found))
        return DONE

    return invocation.run(work)


def _lines(found: SnapshotDiff, most: int | None) -> list[str]:
    lines: list[str] = []
    if found.packages:
        lines.append(columns([_package(change) for change in found.packages]))
    for name, (before, after) in found.config.items():
        lines.append(f"~ {name}: {_text(before)} -> {_text(after)}")
    lines += [_file(difference) for difference in found.files[:most]]
    if most is not None and len(found.files) > most:
        lines.append(f"… and {plural(len(found.files) - most, 'file')} more; --files lists them all")
    return lines


def _package(change: PackageChange) -> tuple[str, str, str]:
    if change.before is None:
        return "+", f"{change.kind} {change.name}", change.after or ""
    if change.after is None:
        return "-", f"{change.kind} {change.name}", change.before
    return "~", f"{change.kind} {change.name}", f"{change.before} -> {change.after}"


def _file(difference: Difference) -> str:
    if difference.first is None:
        return f"+ /{difference.path}"
    if difference.second is None:
        return f"- /{difference.path}"
    return f"~ /{difference.path} ({difference.detail})"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _summary(found: SnapshotDiff) -> str:
    before, after = found.sizes
    change = after - before
    sign = "+" if change >= 0 else "-"
    packages = plural(len(found.packages), "package")
    files = plural(len(found.files), "file")
    sizes = f"{size_text(before)} -> {size_text(after)} ({sign}{size_text(abs(change))})"
    return f"{packages} and {files} differ; {sizes}"


def _document(found: SnapshotDiff) -> dict[str, object]:
    return {
        "packages": [
            {"kind": each.kind, "name": each.name, "before": each.before, "after": each.after}
            for each in found.packages
        ],
        "files": [
            {
                "path": f"/{each.path}",
                "changes": [change.value for change in each.changes],
                "detail": each.detail,
            }
            for each in found.files
        ],
        "config": {name: list(values) for name, values in found.config.items()},
        "sizes": list(found.sizes),
    }
