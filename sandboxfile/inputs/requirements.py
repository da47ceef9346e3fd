"""Requirements files: `-r FILE` entries read and turned into requests, each with its place in its file.

What is understood is pip's format without its options: those change where packages come from, and belong
in the Sandboxfile's `pip` mapping, where the lock records them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sandboxfile.core.digest import digest_bytes
from sandboxfile.declared import dataclass
from sandboxfile.errors import Issue, Source, Span, SpecError
from sandboxfile.spec.model import Pip, PipRequest
from sandboxfile.spec.packages import canonical_requirement
from sandboxfile.spec.shape import Unfit

_OPTION = re.compile(r"(--?[A-Za-z][A-Za-z-]*)(?:\s*=\s*|\s+|(?=$))(.*)")
_INCLUDES = {"-r": "r", "--requirement": "r", "-c": "c", "--constraint": "c"}
_MAPPED = {
    "-i": "index-url",
    "--index-url": "index-url",
    "--pypi-url": "index-url",
    "--extra-index-url": "extra-index-urls",
    "-f": "find-links",
    "--find-links": "find-links",
    "--pre": "prereleases",
    "--no-binary": "build",
}
_NEEDLESS = {
    "--only-binary": "wheels are the only thing installed unless `build` names a distribution",
    "--prefer-binary": "wheels are the only thing installed unless `build` names a distribution",
    "--require-hashes": "sandboxfile.lock holds the hash of every distribution",
    "--no-index": "give `find-links` and an empty index in the settings instead",
    "--trusted-host": "a certificate bundle can be given in the settings (`ca-bundle`)",
}
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")


def expand(directory: Path, pip: Pip) -> tuple[tuple[PipRequest, ...], Mapping[str, str]]:
    """Every pip request of a Sandboxfile, and the digest of each constraints file by its path.

    The requests are those of the Sandboxfile itself, then those of its `-r` files in order, each text
    once. Paths are relative to `directory`, nested ones to the file that names them; the mapping's keys
    are all constraints files there are, relative to `directory`. Raises SpecError with every problem.
    """
    if not pip.files and not pip.constraints:
        return pip.requests, {}
    reader = _read(directory, pip)
    if reader.issues:
        raise SpecError(tuple(reader.issues))
    unique: dict[str, PipRequest] = {}
    for request in (*pip.requests, *reader.requests):
        unique.setdefault(request.requirement, request)
    return tuple(unique.values()), dict(sorted(reader.constraints.items()))


def files_read(directory: Path, pip: Pip) -> tuple[str, ...]:
    """Every requirements and constraints file that `expand` reads, nested ones too, relative to
    `directory` and sorted. Problems in them are left to `expand`."""
    if not pip.files and not pip.constraints:
        return ()
    return tuple(sorted(_read(directory, pip).files))


def _read(directory: Path, pip: Pip) -> _Reader:
    reader = _Reader(directory)
    for file in pip.files:
        reader.read(file.path, "", "r", file.span)
    for path in pip.constraints:
        reader.read(path, "", "c", pip.span)
    return reader


@dataclass(frozen=True)
class _Line:
    """A logical line: continuations joined, comment cut. `number` is that of its first physical line."""

    text: str
    number: int


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._directory = Path(os.path.realpath(directory))
        self._read: set[tuple[str, str]] = set()
        self.requests: list[PipRequest] = []
        self.constraints: dict[str, str] = {}
        self.issues: list[Issue] = []
        self.files: set[str] = set()

    def read(self, path: str, beside: str, kind: str, span: Span | None) -> None:
        """Read a file named from `span`, relative to the directory `beside` (itself relative). `kind` is
        `r` for requirements, `c` for constraints."""
        relative = os.path.normpath(os.path.join(beside, path))
        content = self._content(relative, kind, span)
        if content is None or (relative, kind) in self._read:
            return
        self._read.add((relative, kind))
        self.files.add(relative)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            self._refuse("not-utf8", f"{path} is not UTF-8 text", span)
            return
        if kind == "c":
            self.constraints[relative] = digest_bytes(content)
        source = Source(relative, text)
        for line in _logical_lines(text):
            place = _span(source, line)
            if line.text.startswith("-"):
                self._option(line.text, os.path.dirname(relative), kind, place)
            else:
                self._requirement(line.text, kind, place)

    def _content(self, relative: str, kind: str, span: Span | None) -> bytes | None:
        what = "requirements" if kind == "r" else "constraints"
        if "\0" in relative or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", relative.replace(":/", "://", 1)):
            self._refuse("bad-path", f"`{relative}` is not the path of a {what} file", span)
            return None
        real = os.path.realpath(self._directory / relative)
        if os.path.isabs(relative) or not real.startswith(f"{str(self._directory).rstrip('/')}/"):
            self._refuse(
                "path-outside-context",
                f"{relative} is outside the Sandboxfile's directory",
                span,
                f"copy the {what} file below the Sandboxfile",
            )
            return None
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                return file.read()
        except FileNotFoundError:
            self._refuse(
                "missing-file", f"there is no {what} file {relative}", span, self._near_miss(relative)
            )
        except OSError as error:
            self._refuse("unreadable-file", f"{relative} cannot be read: {error.strerror}", span)
        return None

    def _near_miss(self, relative: str) -> str | None:
        import difflib

        parent, _, name = relative.rpartition("/")
        try:
            names = sorted(os.listdir(self._directory / parent))
        except OSError:
            return None
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        return f"did you mean {os.path.join(parent, close[0])}?" if close else None

    def _option(self, text: str, beside: str, kind: str, span: Span) -> None:
        option = _OPTION.fullmatch(text)
        name, value = (option[1], option[2].strip()) if option else (text.split()[0], "")
        if option is None and text[:2] in _INCLUDES:
            # `-rFILE`, as pip also takes it.
            name, value = text[:2], text[2:].strip()
        if name in _INCLUDES:
            if not value:
                self._refuse("bad-requirement", f"`{name}` needs the path of a file", span)
                return
            # A constraints file can name more constraints; requirements in it would be constraints too.
            self.read(value, beside, "c" if kind == "c" else _INCLUDES[name], span)
        elif name in _MAPPED:
            key = _MAPPED[name]
            self._refuse(
                "option-not-supported",
                f"`{name}` cannot be given in a requirements file",
                span,
                f"set `{key}` under `pip:` in the Sandboxfile",
            )
        elif name in ("-e", "--editable"):
            self._refuse(
                "editable-requirement",
                "an editable requirement cannot be locked",
                span,
                "copy the project with `files` and install it in a `run` step",
            )
        else:
            hint = f"remove it: {_NEEDLESS[name]}" if name in _NEEDLESS else None
            self._refuse(
                "option-not-supported", f"`{name}` is not supported in a requirements file", span, hint
            )

    def _requirement(self, text: str, kind: str, span: Span) -> None:
        if re.search(r"\s--hash(=|\s)", text):
            self._refuse(
                "hashes-not-supported",
                "hashes cannot be given in a requirements file",
                span,
                "remove them: sandboxfile.lock holds the hash of every distribution",
            )
            return
        if re.search(r"\s--[a-z]", text):
            self._refuse("option-not-supported", "options of a single requirement are not supported", span)
            return
        if _VARIABLE.search(text):
            self._refuse("bad-requirement", "environment variables are not replaced in requirements", span)
            return
        try:
            requirement = canonical_requirement(text)
        except Unfit as unfit:
            self._refuse(unfit.code, unfit.message, span, unfit.hint)
            return
        if kind == "r":
            self.requests.append(PipRequest(requirement, span))
        elif "[" in requirement.partition(";")[0].partition("@")[0]:
            self._refuse("bad-requirement", "a constraint cannot have extras", span)

    def _refuse(self, code: str, message: str, span: Span | None, hint: str | None = None) -> None:
        self.issues.append(Issue(code, message, span, "pip", hint))


def _logical_lines(text: str) -> Iterator[_Line]:
    pending, start = "", 0
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        comment = line.lstrip().startswith("#")
        if not pending:
            start = number
        if line.endswith("\\") and not comment and number < len(lines):
            pending += line[:-1]
            continue
        # As pip has it: a comment after a continued line ends it.
        joined = pending + ("" if comment else line)
        pending = ""
        cut = re.sub(r"(^|\s+)#.*$", "", joined).rstrip("\\").strip()
        if cut:
            yield _Line(cut, start)


def _span(source: Source, line: _Line) -> Span:
    text = source.line(line.number)
    column = len(text) - len(text.lstrip())
    shown = re.sub(r"\s+#.*$", "", text).rstrip("\\").strip()
    return Span(source, line.number, column + 1, max(1, len(shown)))
