"""The program's entry: finds the verb, runs it, and turns every error into text and an exit code."""

from __future__ import annotations

import atexit
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import NoReturn

from sandboxfile import __version__
from sandboxfile.cli import exits
from sandboxfile.cli.console import Console, columns, settle, standard_console
from sandboxfile.cli.invocation import Invocation
from sandboxfile.cli.options import DEFAULTS, Parser, add_common, split_at_command, split_at_verb
from sandboxfile.cli.verbs import VERBS, Verb, find, module_of, near
from sandboxfile.errors import SandboxfileError, UsageError

ABOUT = (
    "Declarative environments: one file, one lock, layers that are built once, sandboxes that boot at once."
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Everything is closed and written out by then. The interpreter would still take every module apart, which
    takes longer than a sandbox takes to start.
    """
    code = run(sys.argv[1:] if argv is None else argv)
    atexit._run_exitfuncs()
    os._exit(code)


def run(argv: Sequence[str]) -> int:
    """Run the command line; the exit code. Never raises, except for mistakes of this function itself."""
    words, _ = split_at_command(argv)
    console = standard_console(json="--json" in words)
    attempt = Attempt(argv, console)
    try:
        code = attempt.execute()
        console.out.flush()
    except BrokenPipeError:
        code = exits.BROKEN_PIPE
    except BaseException as error:
        try:
            code = attempt.report(error)
        except BrokenPipeError:
            code = exits.BROKEN_PIPE
        except OSError:
            code = exits.UNUSABLE  # not even the report could be written
    settle(console)
    return code


class Attempt:
    """One try to do what argv says; it knows how far it came, for the report when it fails."""

    def __init__(self, argv: Sequence[str], console: Console) -> None:
        self._argv = argv
        self._console = console
        self._invocation: Invocation | None = None
        self._verbose = False

    def execute(self) -> int:
        """Find the verb and run it."""
        before, name, after = split_at_verb(self._argv)
        args = Namespace(**DEFAULTS)
        general = Parser(None, ABOUT)
        add_common(general)
        general.add_argument("--version", action="store_true")
        general.parse(before, args)
        if args.version:
            self._console.data(f"sandboxfile {__version__}")
            return exits.DONE
        if name is None:
            if after:
                raise UsageError(
                    "`--` stands where a verb should", hint="`sandboxfile --help` lists the verbs"
                )
            if args.help or not self._argv:
                self._console.data(general_help())
                return exits.DONE
            raise UsageError("no verb was given", hint="`sandboxfile --help` lists the verbs")
        verb = find(name)
        if verb is None:
            guess = near(name, tuple(verb.name for verb in VERBS))
            hint = f"did you mean `{guess}`?" if guess else "`sandboxfile --help` lists the verbs"
            raise UsageError(f"there is no verb `{name}`", hint=hint)
        return self._execute_verb(verb, args, after)

    def _execute_verb(self, verb: Verb, args: Namespace, after: list[str]) -> int:
        module = module_of(verb)
        parser = verb_parser(verb)
        words, command = split_at_command(after)
        if "-h" in words or "--help" in words or args.help:
            self._console.data(parser.format_help())
            return exits.DONE
        if command is not None and not verb.command:
            raise UsageError(
                f"`{verb.name}` takes no command after `--`", hint=f"`{parser.prog} --help` shows how"
            )
        parser.parse(words, args)
        self._verbose = args.verbose > 0
        if args.json and not verb.data:
            raise UsageError(f"`{verb.name}` prints no data of its own, so it has no `--json`")
        if args.directory is not None:
            try:
                os.chdir(args.directory)
            except OSError as error:
                reason = (error.strerror or "it is no directory").lower()
                raise UsageError(f"cannot go to the directory `{args.directory}`: {reason}") from None
        self._console.quiet = args.quiet
        self._invocation = Invocation(verb, args, self._console, command)
        return module.execute(self._invocation)

    def report(self, error: BaseException) -> int:
        """Say what went wrong; the exit code."""
        from sandboxfile.cli.failure import (
            InternalError,
            InterruptedBySignal,
            error_document,
            leading,
            of_os,
            render_error,
        )

        cause = leading(error)
        if isinstance(cause, (KeyboardInterrupt, InterruptedBySignal)):
            return _interrupted(self._console)
        if isinstance(cause, SystemExit):
            raise cause
        known = of_os(cause) if isinstance(cause, OSError) else cause
        if not isinstance(known, SandboxfileError):
            known = InternalError(
                f"internal error: {type(cause).__name__}: {cause}",
                hint="this is a mistake in sandboxfile: please report it, with the traceback",
                details=self._keep_traceback(cause),
            )
        code = exits.code_of(known)
        # With -v every line of output has been shown already.
        failed = self._invocation.progress.board.failed if self._invocation and not self._verbose else {}
        self._console.complain(render_error(known, colour=self._console.colour_err, failed=failed))
        if self._console.json:
            self._console.document({"error": error_document(known, code)})
        return code

    def _keep_traceback(self, error: BaseException) -> tuple[str, ...]:
        import traceback

        text = "".join(traceback.format_exception(error))
        if self._verbose or any(word in {"-v", "--verbose"} for word in self._argv):
            return tuple(text.splitlines())
        import tempfile

        try:
            with tempfile.NamedTemporaryFile(
                "wb", prefix="sandboxfile-error-", suffix=".txt", delete=False
            ) as file:
                file.write(text.encode("utf-8", "backslashreplace"))
        except OSError:
            return tuple(text.splitlines())
        return (f"the traceback is in {file.name}",)


def verb_parser(verb: Verb) -> Parser:
    """The parser of a verb, its own arguments first."""
    module = module_of(verb)
    parser = Parser(verb, module.DESCRIPTION)
    module.configure(parser)
    add_common(parser)
    return parser


def general_help() -> str:
    """What `sandboxfile --help` prints."""
    parser = Parser(None)
    add_common(parser)
    _, _, options = parser.format_help().partition("\n\n")
    rows = columns([(f"  {verb.name}", verb.summary) for verb in VERBS])
    codes = columns([(f"  {code}", meaning) for code, meaning in exits.MEANINGS])
    return (
        f"usage: sandboxfile [options] VERB ...\n\n{ABOUT}\n\nverbs:\n{rows}\n\n"
        "`sandboxfile VERB --help` shows the arguments of a verb.\n\n"
        f"{options}\nexit codes:\n{codes}\n"
    )


def _interrupted(console: Console) -> int:
    try:
        console.complain("interrupted")
    except OSError:
        pass  # the terminal may be gone with the signal
    return exits.INTERRUPTED
