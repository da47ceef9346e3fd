"""`sandboxfile schema`."""

from __future__ import annotations

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import Parser

DESCRIPTION = (
    """Print the JSON Schema (draft 2020-12) of the Sandboxfile. Editors use it for completion and checks."""
)


def configure(parser: Parser) -> None:
    """The verb has no arguments of its own."""


def execute(invocation: Invocation) -> int:
    """Print the schema."""
    from sandboxfile.spec.schema import json_schema

    invocation.console.document(json_schema())
    return DONE
