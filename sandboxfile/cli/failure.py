"""Errors as text for people and as JSON for programs."""

from __future__ import annotations

import errno
import signal
from collections.abc import Mapping

from sandboxfile.cli.safe import safe
from sandboxfile.declared import replace
from sandboxfile.errors import (
    EngineError,
    HostError,
    Issue,
    SandboxfileError,
    SpecError,
    StepFailed,
    VerifyFailed,
)


class InternalError(SandboxfileError):
    """A mistake in this program, not the user's; `details` say where the traceback is."""


class InterruptedBySignal(Exception):
    """A signal asked for the end, and everything has been released."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def leading(error: BaseException) -> BaseException:
    """The error to report: of a group of errors, the first that a user can do something about."""
    if isinstance(error, BaseExceptionGroup):
        inside = [leading(each) for each in error.exceptions]
        return next((each for each in inside if isinstance(each, (SandboxfileError, OSError))), inside[0])
    return error


def render_error(
    error: SandboxfileError, *, colour: bool, failed: Mapping[str, tuple[str, ...]] | None = None
) -> str:
    """An error as it is printed on stderr, without an end of line.

    failed: the last output of each task that failed, by name; shown for those whose output the error's own
    details do not hold already.
    """
    blocks: list[str] = []
    shown = {safe(line) for line in error.details}
    if isinstance(error, VerifyFailed):
        for failure in error.failures:
            shown.update(safe(line) for line in failure.details)
            blocks.append(_one(failure, failure.issues, colour))
        if len(error.failures) > 1:
            # The sentence that counts them comes last, where the reader's eye is.
            blocks.append(_block(Issue("verify-failed", error.message), (), error.hint, colour))
        elif error.hint and error.hint not in blocks[-1]:
            blocks[-1] += f"\nhint: {safe(error.hint)}"
    else:
        blocks.append(_one(error, error.issues, colour))
    for label, lines in (failed or {}).items():
        if not shown.intersection(lines):
            blocks.insert(0, "\n".join(f"{label} | {line}" for line in lines))
    return "\n\n".join(blocks)


def error_document(error: SandboxfileError, code: int) -> dict[str, object]:
    """An error as `--json` prints it on stdout, under the key `error`."""
    document: dict[str, object] = {
        "kind": type(error).__name__,
        "message": error.message,
        "exit": code,
        "issues": [_issue_record(issue) for issue in error.issues],
        "hint": error.hint,
        "details": list(error.details),
    }
    if isinstance(error, VerifyFailed):
        document["failures"] = [error_document(failure, code) for failure in error.failures]
    if isinstance(error, StepFailed):
        document["layer"] = error.layer
        document["exit_code"] = error.exit_code
    return document


def of_os(error: OSError) -> SandboxfileError:
    """An error of the operating system that nobody below turned into a sentence."""
    place = error.filename if isinstance(error.filename, str) else None
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {place}" if place else ""
        return HostError(
            f"there is no space left on the disk{where}",
            hint="`sandboxfile cache gc` frees what nothing needs; `sandboxfile cache du` shows what is kept",
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return HostError("too many files are open", hint="raise the limit with `ulimit -n`")
    if error.errno == errno.EROFS:
        return HostError(f"{place or 'the file system'} cannot be written: {reason}")
    if error.errno in (errno.EACCES, errno.EPERM) and place:
        return HostError(f"{place} cannot be used: {reason}", hint="look at its owner and its permissions")
    return EngineError(f"{place}: {reason}" if place else f"the system refused: {reason}")


def _one(error: SandboxfileError, issues: tuple[Issue, ...], colour: bool) -> str:
    *rest, last = issues
    hint = last.hint
    if isinstance(error, StepFailed) and error.workspace and "debug" not in (hint or ""):
        hint = f"{hint}; " if hint else ""
        hint += "`sandboxfile debug` opens a shell where it failed"
    blocks = [_block(issue, (), issue.hint, colour) for issue in rest]
    if error.hint and error.hint != last.hint and not isinstance(error, SpecError):
        hint = f"{hint}; {error.hint}" if hint else error.hint
    blocks.append(_block(last, error.details, hint, colour))
    return "\n\n".join(blocks)


def _block(issue: Issue, details: tuple[str, ...], hint: str | None, colour: bool) -> str:
    if issue.span is None and not issue.related:
        word = "\x1b[1;31merror\x1b[0m" if colour else "error"
        lines = [f"{word}: {safe(issue.message)}"]
    else:
        from sandboxfile.spec.source import render_issue

        bare = replace(issue, hint=None, message=safe(issue.message))
        lines = [render_issue(bare, colour=colour).rstrip("\n")]
    lines += [f"  | {safe(line)}".rstrip() for detail in details for line in detail.splitlines() or [""]]
    if hint:
        lines.append(f"hint: {safe(hint)}")
    return "\n".join(lines)


def _issue_record(issue: Issue) -> dict[str, object]:
    span = issue.span
    return {
        "code": issue.code,
        "message": issue.message,
        "file": span.source.name if span else None,
        "line": span.line if span else None,
        "column": span.column if span else None,
        "length": span.length if span else None,
        "path": issue.path,
        "hint": issue.hint,
        "related": [
            {"message": text, "file": place.source.name, "line": place.line, "column": place.column}
            for text, place in issue.related
        ],
    }
