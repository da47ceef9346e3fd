"""`sandboxfile version`."""

from __future__ import annotations

import sys

from sandboxfile import __version__
from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser

DESCRIPTION = """Print the version."""


def configure(parser: Parser) -> None:
    """The verb has no arguments of its own."""


def execute(invocation: Invocation) -> int:
    """Print the version; with --json also Python's, for reports."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    if invocation.console.json:
        invocation.console.document({"sandboxfile": __version__, "python": python, "platform": sys.platform})
    else:
        invocation.console.data(f"sandboxfile {__version__}")
    return DONE
