"""The verbs: their names and one-line summaries, known without importing any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from sandboxfile.declared import dataclass

if TYPE_CHECKING:
    from sandboxfile.cli.invocation import Invocation
    from sandboxfile.cli.options import Parser


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    usage:   its own arguments, as the usage line shows them
    data:    whether it prints data, and so has `--json`
    command: whether it takes `-- CMD...`
    """

    name: str
    summary: str
    usage: str = ""
    data: bool = True
    command: bool = False


VERBS: tuple[Verb, ...] = (
    Verb("init", "write a commented Sandboxfile to start from", "[DIR] [--force]"),
    Verb("check", "read the Sandboxfile and report every problem in it"),
    Verb(
        "lock",
        "pin everything the Sandboxfile asks for",
        "[--check | --squash | --update [NAME ...] [--security]] [--refresh]",
    ),
    Verb(
        "outdated",
        "list pinned packages that have newer versions",
        "[--security] [--check] [--refresh]",
    ),
    Verb("plan", "show what a build would do, and why", "[--force LAYER]"),
    Verb(
        "build",
        "build what changed, verify it, and print the snapshot's slug",
        "[--force LAYER | --expect-cached]",
    ),
    Verb(
        "vendor",
        "write the lock and its packages to a directory, to build without network",
        "[PATH] [--check]",
    ),
    Verb(
        "explain",
        "show what a layer is made of and why it is built or reused",
        "[LAYER] [--log | --since BUILD | --build BUILD | --builds]",
    ),
    Verb("run", "run a command in a fresh sandbox", "[TARGET] [sandbox options] -- CMD ...", False, True),
    Verb("shell", "open a shell in a fresh sandbox", "[TARGET] [sandbox options]", False),
    Verb(
        "up",
        "start the environment's `start` command and print its URL",
        "[TARGET] [--port N] [--timeout TIME] [--detach]",
    ),
    Verb("sandboxes", "list the sandboxes that run, and end detached ones", "[list | logs ID | kill ID ...]"),
    Verb("debug", "open a shell where the last build failed", "", False),
    Verb("verify", "run every check of the built environment again, or prove its bytes", "[--rebuild]"),
    Verb("snapshots", "list, show and remove snapshots", "[list | show TARGET | rm TARGET ...]"),
    Verb("diff", "show what differs between two snapshots", "A B [--files]"),
    Verb(
        "cache",
        "show what the store holds, free what nothing needs, prove that it is sound",
        "[du [--by WHAT] | gc [options] | check [--full] [--repair]]",
    ),
    Verb("graph", "print the layer graph as DOT or Mermaid", "[--format dot|mermaid]"),
    Verb("doctor", "check what the engine needs of this machine"),
    Verb("schema", "print the Sandboxfile's JSON Schema, for editors"),
    Verb("version", "print the version"),
)


class VerbModule(Protocol):
    """What a module of `commands` holds."""

    DESCRIPTION: str
    configure: Callable[[Parser], None]
    execute: Callable[[Invocation], int]


def find(name: str) -> Verb | None:
    """The verb of that name."""
    return next((verb for verb in VERBS if verb.name == name), None)


def module_of(verb: Verb) -> VerbModule:
    """Import a verb's module."""
    from importlib import import_module

    return cast(VerbModule, import_module(f"sandboxfile.cli.commands.{verb.name}"))


def near(name: str, names: tuple[str, ...]) -> str | None:
    """The name most like a misspelt one, None when nothing is."""
    from difflib import get_close_matches

    found = get_close_matches(name, names, n=1, cutoff=0.6)
    return found[0] if found else None
