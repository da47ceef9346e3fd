"""The options: those of every verb, and a parser that raises UsageError instead of exiting.

The options of every verb may stand before and after it. So argv is split at the verb first; both parts
are parsed into one namespace.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from sandboxfile.cli.verbs import Verb, near
from sandboxfile.errors import UsageError

ENGINES = ("linux", "memory")
DEFAULTS: dict[str, object] = {
    "file": None,
    "directory": None,
    "engine": "linux",
    "runtime": None,
    "param": [],
    "locked": False,
    "offline": False,
    "vendor": None,
    "json": False,
    "quiet": False,
    "verbose": 0,
    "home": None,
    "progress": "auto",
    "help": False,
    "version": False,
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UsageErrors with a hint."""

    def __init__(self, verb: Verb | None, description: str = "") -> None:
        name = f"sandboxfile {verb.name}" if verb else "sandboxfile"
        own = f" {verb.usage}" if verb and verb.usage else ""
        super().__init__(
            prog=name,
            usage=f"{name}{own}" if verb else f"{name} [options] VERB ...",
            description=description or None,
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
            argument_default=argparse.SUPPRESS,
        )
        if hasattr(self, "color"):  # Python 3.14 colours help unless told not to
            self.color = False

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise UsageError(_sentence(message), hint=f"`{self.prog} --help` shows how to use it")

    def parse(self, argv: Sequence[str], namespace: argparse.Namespace) -> None:
        """Parse all of argv into a namespace that may hold values already."""
        _, unknown = self.parse_known_args(list(argv), namespace)
        if not unknown:
            return
        word = unknown[0]
        if word.startswith("-"):
            option = word.partition("=")[0]
            known = tuple(name for action in self._actions for name in action.option_strings)
            guess = near(option, known)
            hint = f"did you mean `{guess}`?" if guess else f"`{self.prog} --help` lists the options"
            raise UsageError(f"unknown option `{option}`", hint=hint)
        raise UsageError(
            f"`{word}` is one argument too many", hint=f"`{self.prog} --help` shows how to use it"
        )


class _Formatter(argparse.HelpFormatter):
    """Help that reads the same under every Python version."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        if action.nargs == 0:
            return names
        return f"{names} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


def add_common(parser: Parser) -> None:
    """Add the options of every verb."""
    group = parser.add_argument_group("options of every verb")
    add = group.add_argument
    add("-f", "--file", metavar="FILE", help="the Sandboxfile to use, instead of the one in the directory")
    add("-C", "--directory", metavar="DIR", help="behave as if started in DIR")
    add(
        "--engine",
        metavar="NAME",
        choices=ENGINES,
        help="where to build and run: linux (default) or memory",
    )
    add(
        "--runtime",
        metavar="NAME",
        help="the OCI runtime of the linux engine, a name or a path: crun, runc or runsc",
    )
    add(
        "--param",
        metavar="K=V",
        action="append",
        help="give the Sandboxfile's parameter K the value V (repeatable)",
    )
    add("--locked", action="store_true", help="never change the lock; exit 4 when it is stale")
    add(
        "--offline",
        action="store_true",
        help="use no network; what is neither in the store nor vendored is an error",
    )
    add(
        "--vendor",
        metavar="PATH",
        help="take packages from what `sandboxfile vendor PATH` wrote, before any other origin",
    )
    add("--json", action="store_true", help="print data as JSON on stdout, errors included")
    add("-q", "--quiet", action="store_true", help="on stderr, only errors")
    add("-v", "--verbose", action="count", help="on stderr, also the output of every step")
    add(
        "--home",
        metavar="DIR",
        help="the store's directory, instead of $SANDBOXFILE_HOME or the user's default",
    )
    add(
        "--progress",
        metavar="MODE",
        choices=("auto", "live", "plain", "json"),
        help="how to show progress on stderr: auto, live, plain or json",
    )
    add("-h", "--help", action="store_true", help="show this help")


TAKES_VALUE = frozenset(
    {
        "-f",
        "--file",
        "-C",
        "--directory",
        "--engine",
        "--runtime",
        "--param",
        "--vendor",
        "--home",
        "--progress",
    }
)
"""Those of the common options that are followed by a value."""


def split_at_verb(argv: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """What stands before the verb, the verb, and what stands after it."""
    position = 0
    while position < len(argv):
        word = argv[position]
        if word == "--":
            return list(argv[:position]), None, list(argv[position:])
        if not word.startswith("-"):
            return list(argv[:position]), word, list(argv[position + 1 :])
        position += 2 if word in TAKES_VALUE else 1
    return list(argv), None, []


def split_at_command(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What stands before the first `--`, and the command after it (None when there is no `--`)."""
    words = list(argv)
    if "--" not in words:
        return words, None
    position = words.index("--")
    return words[:position], words[position + 1 :]


def duration(text: str) -> float:
    """Seconds from `90` or a duration as the Sandboxfile has it (`90s`, `1h30m`): an argparse type."""
    from sandboxfile.spec import words
    from sandboxfile.spec.shape import Unfit

    try:
        return words.duration(f"{text}s" if text.isascii() and text.isdigit() else text)
    except Unfit:
        raise argparse.ArgumentTypeError(f"`{text}` is no time such as 90s, 5m or 1h30m") from None


def port_number(text: str) -> int:
    """A TCP port: an argparse type."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"`{text}` is no port between 1 and 65535")
    return int(text)


def assignment(text: str, option: str) -> tuple[str, str]:
    """The name and the value of `K=V`. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"`{option} {text}` is not of the form NAME=VALUE")
    return name, value


def _sentence(message: str) -> str:
    """argparse's words in ours: `argument --port: …` becomes `--port: …`."""
    return message.removeprefix("argument ")
