"""Every error a user can meet, in one tree.

    SandboxfileError
    ├── SpecError            the Sandboxfile is wrong; carries every Issue found
    ├── UsageError           the command line or the API was used wrongly
    ├── LockError            the lockfile
    │   ├── LockStale            it does not answer the Sandboxfile's requests
    │   ├── LockFormatError      it is broken, or written by a newer version
    │   └── ResolveError         apt or uv found no answer; carries Issues like SpecError
    ├── PlanError            no plan can be made (a pinned input is missing)
    ├── FetchError           a download failed
    │   └── IntegrityError       the bytes or the signature are not what was promised
    │       ├── SignatureInvalid     an archive's signature does not hold, or its key no longer counts
    │       ├── IndexExpired         an archive's index is past its Valid-Until
    │       └── IndexRolledBack      it is older than the one that was seen before
    ├── StoreError           the store cannot be read or written
    │   └── NoSuchSnapshot       a slug or name that nothing answers to
    ├── EngineError          the engine or the host is not usable
    │   ├── HostError            a host requirement is missing; the hint is the remedy
    │   │   └── ClockWrong           this machine's clock is behind what was signed
    │   ├── MissingCapability    this engine cannot do what was asked
    │   └── LimitNotEnforceable  this host cannot enforce a limit; `limit` names it
    ├── VolumeError          something about a volume
    │   ├── NoSuchVolume         no volume answers to a slug or id
    │   └── VolumeInUse          a sandbox has it mounted
    ├── SlugTaken            a volume or snapshot has that slug already
    ├── SandboxError         something about a running sandbox
    │   ├── NoSuchSandbox        no sandbox that lives has that id
    │   ├── SandboxElsewhere     it belongs to another client and is not detached
    │   ├── SandboxGone          it has ended; what was asked of it cannot be done
    │   ├── FileRefused          what is there is no file that is read or written from outside
    │   ├── FileTooLarge         there is more than the limit that was given
    │   └── CommandFailed        a command in it exited with a failure
    └── BuildError           the build failed
        ├── CacheMiss            something would be built that was to be there
        ├── StepFailed           a command exited with a failure
        └── VerifyFailed         one or more checks failed

An exception carries data: a sentence, where it happened, what to do about it, and what the failing
program last said. Only `cli` turns it into text and an exit code.
"""

from __future__ import annotations

from dataclasses import field

from sandboxfile.declared import dataclass


@dataclass(frozen=True)
class Source:
    """A text a user wrote: the name to show for it and its lines."""

    name: str
    text: str = field(repr=False, default="")

    def line(self, number: int) -> str:
        """Line `number` (1-based) without its end, or an empty string beyond the text."""
        lines = self.text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""


@dataclass(frozen=True)
class Span:
    """A place in a source: 1-based line and column, and how many characters to underline."""

    source: Source
    line: int
    column: int
    length: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Issue:
    """One problem in a user's file.

    `code` is a stable kebab-case word, `path` the place in the document (`verify[2].run`), `related`
    other places that belong to the problem, each with its own few words.
    """

    code: str
    message: str
    span: Span | None = None
    path: str = ""
    hint: str | None = None
    related: tuple[tuple[str, Span], ...] = ()


class SandboxfileError(Exception):
    """The root. `message` is one sentence in the user's terms, without a full stop at its end.

    span:    the place in the user's file, when there is one
    hint:    what to do about it
    details: lines of evidence (a program's last output), shown indented
    """

    def __init__(
        self,
        message: str,
        *,
        span: Span | None = None,
        hint: str | None = None,
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.hint = hint
        self.details = details

    @property
    def issues(self) -> tuple[Issue, ...]:
        """The problems to report; one made from this error unless a subclass collected several."""
        return (Issue(_code(type(self)), self.message, self.span, hint=self.hint),)


class SpecError(SandboxfileError):
    """The Sandboxfile is wrong. All issues found are in `issues`, in the order of their places."""

    def __init__(self, issues: tuple[Issue, ...]) -> None:
        first = issues[0]
        super().__init__(first.message, span=first.span, hint=first.hint)
        self._issues = issues

    @property
    def issues(self) -> tuple[Issue, ...]:
        return self._issues


class UsageError(SandboxfileError):
    """The command line or the API was used wrongly."""


class LockError(SandboxfileError):
    """Something about the lockfile."""


class LockStale(LockError):
    """The lock does not answer the Sandboxfile's requests; `requests` names each difference."""

    def __init__(self, message: str, requests: tuple[str, ...], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, details=requests)
        self.requests = requests


class LockFormatError(LockError):
    """The lockfile is broken, or a newer version wrote it."""


class ResolveError(LockError):
    """apt or uv found no answer to the requests. `issues` points at each request concerned."""

    def __init__(
        self,
        message: str,
        *,
        issues: tuple[Issue, ...] = (),
        hint: str | None = None,
        details: tuple[str, ...] = (),
    ) -> None:
        span = issues[0].span if issues else None
        super().__init__(message, span=span, hint=hint, details=details)
        self._issues = issues

    @property
    def issues(self) -> tuple[Issue, ...]:
        return self._issues or super().issues


class PlanError(SandboxfileError):
    """No plan can be made from this Sandboxfile and lock."""


class FetchError(SandboxfileError):
    """A download failed at every origin that could have answered.

    `absent` is True when one of them said that it has no such file.
    """

    absent = False


class IntegrityError(FetchError):
    """Bytes do not have the digest, or a document not the signature, that was promised."""


class SignatureInvalid(IntegrityError):
    """No signature of an archive's index holds, or the keys that made it are unknown, expired or revoked."""


class IndexExpired(IntegrityError):
    """An archive's index is past the time until which it is valid."""


class IndexRolledBack(IntegrityError):
    """An archive's index is older than one of the same suite that was seen before."""


class StoreError(SandboxfileError):
    """The store cannot be read or written."""


class NoSuchSnapshot(StoreError):
    """Nothing in the store answers to a slug or name."""


class EngineError(SandboxfileError):
    """The engine or the host is not usable."""


class HostError(EngineError):
    """The host lacks something the engine needs; the hint is the exact remedy."""


class ClockWrong(HostError):
    """This machine's clock says a time before that of something that was signed."""


class MissingCapability(EngineError):
    """This engine cannot do what was asked. `capability` names it."""

    def __init__(
        self, message: str, capability: str, *, span: Span | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, span=span, hint=hint)
        self.capability = capability


class LimitNotEnforceable(EngineError):
    """This host or back end cannot enforce a limit. `limit` names it (`memory`, `disk`, ...)."""

    def __init__(
        self, message: str, limit: str, *, span: Span | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, span=span, hint=hint)
        self.limit = limit


class VolumeError(SandboxfileError):
    """Something about a volume."""


class NoSuchVolume(VolumeError):
    """No volume answers to a slug or id."""


class VolumeInUse(VolumeError):
    """A sandbox has the volume mounted."""


class SlugTaken(SandboxfileError):
    """A volume or a snapshot has that slug already: they share one namespace."""


class SandboxError(SandboxfileError):
    """Something about a running sandbox."""


class NoSuchSandbox(SandboxError):
    """No sandbox that lives has that id."""


class SandboxElsewhere(SandboxError):
    """The sandbox lives, but belongs to another client and is not detached: only that client reaches it."""


class SandboxGone(SandboxError):
    """The sandbox has ended: it was closed, killed, or its time was over."""


class FileRefused(SandboxError):
    """A path in a sandbox leads to a FIFO, a socket, a device or a file of the kernel."""


class FileTooLarge(SandboxError):
    """A file or tree in a sandbox holds more than the limit that was given."""


class CommandFailed(SandboxError):
    """A command in a sandbox exited with a failure.

    exit_code: the command's, 128 + signal when a signal ended it
    stdout, stderr: what it wrote, where that was piped
    limit:     the limit that stopped it (`memory`, `timeout`), None when none did
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int,
        stdout: bytes = b"",
        stderr: bytes = b"",
        limit: str | None = None,
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, details=details)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        self.limit = limit


class BuildError(SandboxfileError):
    """The build failed."""


class CacheMiss(BuildError):
    """A build was to find everything done, and something is not. `node` is the first layer or check that
    would have been built or run, `reason` says why."""

    def __init__(
        self,
        message: str,
        node: str,
        reason: str,
        *,
        span: Span | None = None,
        hint: str | None = None,
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, span=span, hint=hint, details=details)
        self.node = node
        self.reason = reason


class StepFailed(BuildError):
    """A command in a build ended with a failure.

    layer:     the layer's name (`run-2`)
    exit_code: the command's, 128 + signal when a signal ended it, None when it timed out
    workspace: the kept workspace that `debug` opens, if there is one
    """

    def __init__(
        self,
        message: str,
        *,
        layer: str,
        exit_code: int | None,
        workspace: str | None = None,
        span: Span | None = None,
        hint: str | None = None,
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, span=span, hint=hint, details=details)
        self.layer = layer
        self.exit_code = exit_code
        self.workspace = workspace


class VerifyFailed(BuildError):
    """Checks failed; `failures` holds one StepFailed for each, in the order of the file."""

    def __init__(self, message: str, failures: tuple[StepFailed, ...], *, hint: str | None = None) -> None:
        super().__init__(message, span=failures[0].span if failures else None, hint=hint)
        self.failures = failures


def _code(kind: type) -> str:
    words = "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__)
    return words.lstrip("-").removesuffix("-error")
