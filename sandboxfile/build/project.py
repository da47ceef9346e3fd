"""A Sandboxfile on this machine, with everything around it that it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxfile.declared import dataclass
from sandboxfile.errors import LockFormatError, UsageError

if TYPE_CHECKING:
    from sandboxfile.spec.lock import Lockfile, Requests
    from sandboxfile.spec.model import PipRequest, Sandboxfile

FILE_NAMES = ("Sandboxfile", "Sandboxfile.yaml", "Sandboxfile.yml", "Sandboxfile.toml")
PYPROJECT = "pyproject.toml"
LOCK_NAME = "sandboxfile.lock"


@dataclass(frozen=True)
class Project:
    """A Sandboxfile on this machine: the file, its directory (the build context), the parsed document.

    params: parameters as given on the command line
    """

    file: Path
    directory: Path
    sandboxfile: Sandboxfile
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def lock_path(self) -> Path:
        """Where its lock is: `sandboxfile.lock` beside it."""
        return self.directory / LOCK_NAME

    @property
    def environment(self) -> str:
        """What this environment is known by in the store: the path of its file, and its parameters."""
        given = ",".join(f"{name}={value}" for name, value in sorted(self.params.items()))
        return f"{self.file}?{given}" if given else str(self.file)

    @cached_property
    def pip_inputs(self) -> tuple[tuple[PipRequest, ...], Mapping[str, str]]:
        """The pip requests with every `-r` file read, and the digests of pinned input files."""
        from sandboxfile.inputs.requirements import expand

        return expand(self.directory, self.sandboxfile.pip)

    @cached_property
    def requests(self) -> Requests:
        """What the lock has to answer."""
        from sandboxfile.core.digest import digest_bytes
        from sandboxfile.spec.requests import requests_of

        requests, constraints = self.pip_inputs
        inputs = dict(constraints)
        for name in self._key_files():
            try:
                inputs[name] = digest_bytes((self.directory / name).read_bytes())
            except OSError:
                # Whoever needs the key says what is wrong with it, and where it is named.
                inputs[name] = ""
        return requests_of(self.sandboxfile, pip_requests=requests, inputs=inputs)

    def _key_files(self) -> tuple[str, ...]:
        """The files that hold signing keys of apt sources; a key may also stand in the Sandboxfile."""
        sources = self.sandboxfile.apt.sources
        return tuple(s.signed_by for s in sources if "-----BEGIN" not in s.signed_by)

    def documents(self) -> tuple[Path, ...]:
        """The files and directories that were read beside the Sandboxfile, its lock and its `files`."""
        from sandboxfile.inputs.requirements import files_read

        names = [*files_read(self.directory, self.sandboxfile.pip), *self._key_files()]
        recipes = [Path(recipe.directory) for recipe in self.sandboxfile.recipes]
        return (*(self.directory / name for name in names), *recipes)

    def read_lock(self) -> Lockfile | None:
        """The lock beside the file, None when there is none. Raises LockFormatError."""
        try:
            text = self.lock_path.read_text("utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise LockFormatError(
                f"{LOCK_NAME} is not UTF-8 text", hint="restore it from version control, or delete it"
            ) from None
        except OSError as error:
            raise UsageError(f"{self.lock_path} cannot be read: {error.strerror}") from None
        from sandboxfile.spec.lockfile import load

        return load(text, LOCK_NAME)

    def write_lock(self, lock: Lockfile) -> bool:
        """Put a lock beside the file, whole or not at all. False when it was already that."""
        from sandboxfile.spec.lockfile import dump

        text = dump(lock)
        try:
            if self.lock_path.exists() and self.lock_path.read_text("utf-8") == text:
                return False
            part = self.lock_path.with_name(f".{LOCK_NAME}.{os.getpid()}")
            try:
                part.write_text(text, "utf-8")
                part.replace(self.lock_path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{self.lock_path} cannot be written: {error.strerror}") from None
        return True


def find_file(file: Path | None = None, directory: Path | None = None) -> Path:
    """The Sandboxfile that is meant, absolute: `file`, else the first of the usual names in `directory`.

    Raises UsageError when there is none.
    """
    place = (directory or Path.cwd()).absolute()
    if file is not None:
        found = place / file
        if found.is_dir():
            return find_file(directory=found)
        if not found.is_file():
            raise UsageError(f"there is no file {file}")
        return found
    if not place.is_dir():
        raise UsageError(f"there is no directory {directory}")
    for name in FILE_NAMES:
        if (place / name).is_file():
            return place / name
    pyproject = place / PYPROJECT
    if pyproject.is_file() and "tool.sandboxfile" in pyproject.read_text("utf-8", "replace"):
        return pyproject
    raise UsageError(
        f"there is no Sandboxfile in {place}", hint="make one with `sandboxfile init`, or name one with -f"
    )


def load_project(file: Path, params: Mapping[str, str] | None = None) -> Project:
    """Read and check a Sandboxfile. Raises SpecError with every issue found."""
    from sandboxfile.inputs.recipes import RecipeReader, shipped_directories
    from sandboxfile.spec.load import load

    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    document = load(
        file.name,
        content,
        params=dict(params or {}),
        default_name=file.parent.name or "env",
        read_recipe=RecipeReader(shipped_directories(), file.parent),
    )
    return Project(file, file.parent, document, dict(params or {}))
