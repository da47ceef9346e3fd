"""`sandboxfile doctor`."""

from __future__ import annotations

from sandboxfile.cli.console import columns
from sandboxfile.cli.exits import DONE, UNUSABLE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural

DESCRIPTION = """Check everything the linux engine needs of this machine, and print the remedy for what is
missing. Exit 3 when something is missing that it cannot do without."""


def configure(parser: Parser) -> None:
    """The verb has no arguments of its own."""


def execute(invocation: Invocation) -> int:
    """Print each requirement."""
    from sandboxfile import api

    console = invocation.console
    rows = [
        {
            "name": each.name,
            "ok": each.ok,
            "needed": bool(each.needed),
            "detail": each.detail,
            "remedy": each.remedy,
        }
        for each in api.doctor()
    ]
    if console.json:
        console.document(rows)
    else:
        table = columns([(_state(row), str(row["name"]), str(row["detail"])) for row in rows])
        for row, line in zip(rows, table.splitlines(), strict=True):
            console.data(line)
            if not row["ok"]:
                for remedy in str(row["remedy"] or "").splitlines():
                    console.data(f"{'':<10}{remedy}")
    missing = [str(row["name"]) for row in rows if row["needed"] and not row["ok"]]
    if missing:
        console.say(f"{plural(len(missing), 'requirement')} missing: {', '.join(missing)}")
        return UNUSABLE
    console.say("this machine has everything the linux engine needs")
    return DONE


def _state(row: dict[str, object]) -> str:
    if row["ok"]:
        return "ok"
    return "missing" if row["needed"] else "optional"
