"""`sandboxfile check`."""

from __future__ import annotations

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser
from sandboxfile.core.units import plural

DESCRIPTION = """Read the Sandboxfile and report every problem in it at once, each with its place
and what to do. Nothing is fetched, built or written; whether the lock answers the file is said by
`lock --check`."""


def configure(parser: Parser) -> None:
    """The verb has no arguments of its own."""


def execute(invocation: Invocation) -> int:
    """Load the file; a problem raises SpecError."""
    console = invocation.console
    project = invocation.load(invocation.client())
    document = project.sandboxfile
    counts = {
        "apt": len(document.apt.packages),
        "pip": len(document.pip.requests) + len(document.pip.files),
        "files": len(document.files),
        "run": len(document.run),
        "verify": len(document.verify),
    }
    if console.json:
        console.document({"name": document.name, "file": str(project.file), "problems": 0, **counts})
    nouns = {
        "apt": ("apt request", None),
        "pip": ("pip request", None),
        "files": ("file entry", "file entries"),
        "run": ("run step", None),
        "verify": ("check", None),
    }
    parts = [plural(count, *nouns[key]) for key, count in counts.items() if count]
    holds = f" ({', '.join(parts)})" if parts else ""
    console.say(f"{project.file.name}: no problems in `{document.name}`{holds}")
    return DONE
