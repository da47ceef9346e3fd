"""Exit codes: what each means, and which error ends with which. The one table of both."""

from __future__ import annotations

from sandboxfile import errors

DONE = 0
FAILED = 1
WRONG = 2
UNUSABLE = 3
STALE = 4
INTERRUPTED = 130
BROKEN_PIPE = 141

MEANINGS: tuple[tuple[int, str], ...] = (
    (DONE, "done"),
    (FAILED, "the build, a check or a download failed; `outdated --check` found something"),
    (WRONG, "the Sandboxfile, the lock's text or the usage is wrong"),
    (UNUSABLE, "the engine, the store or the host is not usable"),
    (STALE, "the lock is stale and `--locked` or `--check` forbids to change it"),
    (INTERRUPTED, "interrupted by Ctrl-C, SIGTERM or SIGHUP; everything was stopped and released"),
    (BROKEN_PIPE, "whoever read the output went away (as a shell reports SIGPIPE)"),
)

_OF_ERROR: dict[type[BaseException], int] = {
    errors.SandboxfileError: FAILED,
    errors.SpecError: WRONG,
    errors.UsageError: WRONG,
    errors.LockError: WRONG,
    errors.LockStale: STALE,
    errors.PlanError: WRONG,
    errors.FetchError: FAILED,
    errors.StoreError: UNUSABLE,
    errors.NoSuchSnapshot: WRONG,
    errors.EngineError: UNUSABLE,
    errors.BuildError: FAILED,
    OSError: UNUSABLE,
}
"""By class; an error that is not named has its nearest ancestor's code."""


def code_of(error: BaseException) -> int:
    """The exit code an error ends with."""
    for kind in type(error).__mro__:
        if kind in _OF_ERROR:
            return _OF_ERROR[kind]
    return FAILED


def table() -> tuple[tuple[str, int], ...]:
    """Each error class that has a code of its own, by name, for the reference."""
    return tuple((kind.__name__, code) for kind, code in _OF_ERROR.items())
