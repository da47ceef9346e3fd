"""`sandboxfile outdated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxfile.cli.console import columns
from sandboxfile.cli.exits import DONE, FAILED
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient
    from sandboxfile.build.outdated import Outdated, OutdatedReport

DESCRIPTION = """List the pinned packages that the archives and indexes have newer versions of, one
line each; nothing is changed. A security update is one that a suite named -security holds. A
vulnerable package that a higher layer replaces is listed too, for its files are still in the lower
one. For Python distributions an index knows no advisories: only newer versions, and files that
were withdrawn."""


def configure(parser: Parser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("--security", action="store_true", default=False, help="list security updates only")
    add("--check", action="store_true", default=False, help="exit 1 when anything is listed")
    add(
        "--refresh",
        action="store_true",
        default=False,
        help="ask the archives again, however recent their answer",
    )


def execute(invocation: Invocation) -> int:
    """Print what is outdated."""
    args, console = invocation.args, invocation.console

    async def work(client: AsyncClient) -> int:
        report = await client.outdated(
            invocation.load(client), refresh=args.refresh and not args.offline, offline=args.offline
        )
        invocation.progress.close()
        listed = report.security if args.security else report.packages
        if console.json:
            console.document(_document(report, listed))
        elif listed:
            console.data(columns([_row(each) for each in listed]))
        console.say(_summary(report))
        for sentence in report.unknown:
            console.say(f"not known: {sentence}")
        return FAILED if args.check and listed else DONE

    return invocation.run(work)


def _row(each: Outdated) -> tuple[str, ...]:
    marks = ["security"] if each.security else []
    marks += ["withdrawn from the index"] if each.withdrawn else []
    marks += [f"hidden by {each.hidden_by}"] if each.hidden_by else []
    return each.layer, each.name, each.locked, f"-> {each.newest}" if each.newest else "", ", ".join(marks)


def _summary(report: OutdatedReport) -> str:
    newer = [each for each in report.packages if each.newest is not None and each.hidden_by is None]
    hidden = sum(1 for each in report.packages if each.hidden_by)
    verb = "has a newer version" if len(newer) == 1 else "have newer versions"
    said = f"{len(newer)} of {plural(report.looked_at, 'pinned package')} {verb}"
    secure = sum(1 for each in newer if each.security)
    if secure:
        said += f", {secure} of them for security"
    if hidden:
        said += f"; {plural(hidden, 'vulnerable package')} hidden in lower layers"
    if report.security:
        said += "; `sandboxfile lock --update --security` moves those"
    return said


def _document(report: OutdatedReport, listed: tuple[Outdated, ...]) -> dict[str, object]:
    return {
        "packages": [
            {
                "kind": each.kind,
                "name": each.name,
                "layer": each.layer,
                "locked": each.locked,
                "newest": each.newest,
                "security": each.security,
                "withdrawn": each.withdrawn,
                "hidden_by": each.hidden_by,
            }
            for each in listed
        ],
        "looked_at": report.looked_at,
        "unknown": list(report.unknown),
    }
