"""`sandboxfile doctor`."""

from __future__ import annotations

from sandboxfile.cli.exits import DONE, UNUSABLE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural

DESCRIPTION = """Check everything the linux engine needs of this machine, and print the remedy for
what is missing. Exit 3 when something is."""


def configure(parser: Parser) -> None:
    """The verb has no arguments of its own."""


def execute(invocation: Invocation) -> int:
    """Print each requirement."""
    from sandboxfile import api

    console = invocation.console
    requirements = api.doctor()
    missing = [each for each in requirements if not each.ok]
    if console.json:
        console.document(
            [
                {"name": each.name, "ok": each.ok, "detail": each.detail, "remedy": each.remedy}
                for each in requirements
            ]
        )
    else:
        width = max((len(each.name) for each in requirements), default=0)
        for each in requirements:
            console.data(f"{'ok' if each.ok else 'missing':<7}  {each.name:<{width}}  {each.detail}".rstrip())
            if not each.ok and each.remedy:
                for line in each.remedy.splitlines():
                    console.data(f"{'':<9}{line}")
    if missing:
        console.say(
            f"{plural(len(missing), 'requirement')} missing: {', '.join(each.name for each in missing)}"
        )
        return UNUSABLE
    console.say("this machine has everything the linux engine needs")
    return DONE
