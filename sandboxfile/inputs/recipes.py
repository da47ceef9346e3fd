"""Recipes on this machine: finding them, reading them, the digest of their trees."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from sandboxfile.core.digest import Digest, digest_bytes, digest_of
from sandboxfile.errors import Issue, SpecError
from sandboxfile.spec.recipe import RecipeRef, RecipeText
from sandboxfile.spec.shape import did_you_mean

RECIPE_FILE = "recipe.yaml"
RECIPE_TAG = "sandboxfile.recipe/v1"
_IGNORED = frozenset({".git", "__pycache__"})
_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_directories() -> tuple[Path, ...]:
    """Where the recipes that come with the program are: in the installed package, or in its checkout."""
    found = (_PACKAGE / "_recipes", _PACKAGE.parent / "recipes")
    return tuple(directory for directory in found if directory.is_dir())


class RecipeReader:
    """Finds and reads recipes; an instance is the `read_recipe` of `spec.load.load`.

    search_dirs: directories whose subdirectories are recipes by name, first one first
    base_dir:    the Sandboxfile's directory, which `./path` references start from
    """

    def __init__(self, search_dirs: Sequence[Path], base_dir: Path) -> None:
        self._search_dirs = tuple(search_dirs)
        self._base_dir = Path(os.path.realpath(base_dir))

    def names(self) -> tuple[str, ...]:
        """The names of all recipes that can be used without a path, sorted."""
        return tuple(
            sorted(
                {path.parent.name for place in self._search_dirs for path in place.glob(f"*/{RECIPE_FILE}")}
            )
        )

    def __call__(self, ref: RecipeRef) -> RecipeText:
        """The recipe a reference stands for. Raises SpecError with the reference's place."""
        directory = self._local(ref) if ref.name.startswith(".") else self._shipped(ref)
        name = self._name(ref, directory)
        # Walking first: a link that leads out of the recipe is refused before anything is read through it.
        digest = tree_digest(directory, ref)
        try:
            data = (directory / RECIPE_FILE).read_bytes()
        except FileNotFoundError:
            hint = f"a recipe is a directory with a {RECIPE_FILE}"
            raise _refused(ref, f"the recipe `{ref.name}` has no {RECIPE_FILE}", hint) from None
        except OSError as error:
            raise _refused(ref, f"the recipe `{ref.name}` cannot be read: {error.strerror}") from None
        shown = os.path.relpath(directory / RECIPE_FILE, self._base_dir)
        source = f"{name}/{RECIPE_FILE}" if shown.startswith("..") and not ref.name.startswith(".") else shown
        return RecipeText(name, str(directory), source, data, digest)

    def _local(self, ref: RecipeRef) -> Path:
        origin = Path(ref.origin) if ref.origin else self._base_dir
        written = Path(os.path.normpath(origin / ref.name))
        directory = Path(os.path.realpath(written))
        if not directory.is_dir():
            near = written.parent.glob(f"*/{RECIPE_FILE}") if written.parent.is_dir() else ()
            hint = did_you_mean(written.name, [path.parent.name for path in near])
            raise _refused(ref, f"there is no recipe directory `{ref.name}`", hint)
        if directory != written and not directory.is_relative_to(Path(os.path.realpath(origin))):
            raise _refused(ref, f"the recipe `{ref.name}` is a link that leads out of its directory")
        return directory

    def _shipped(self, ref: RecipeRef) -> Path:
        for place in self._search_dirs:
            if (place / ref.name / RECIPE_FILE).is_file():
                return Path(os.path.realpath(place / ref.name))
        known = self.names()
        hint = did_you_mean(ref.name, known)
        if hint is None and (self._base_dir / ref.name).is_dir():
            hint = f"write `./{ref.name}` for the directory"
        hint = hint or (f"known recipes: {', '.join(known)}" if known else "write `./path` for a directory")
        raise _refused(ref, f"no recipe is called `{ref.name}`", hint, code="recipe-not-found")

    def _name(self, ref: RecipeRef, directory: Path) -> str:
        if not ref.name.startswith("."):
            return ref.name
        path = os.path.relpath(directory, self._base_dir)
        return path if path.startswith("..") else f"./{path}"


def tree_digest(directory: Path, ref: RecipeRef) -> Digest:
    """The digest of everything in a recipe's directory: paths, executable bits, contents, links. Raises
    SpecError for what a recipe cannot hold."""
    entries: list[tuple[str, str, str]] = []
    for place, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if name not in _IGNORED)
        for name in [*(name for name in names if os.path.islink(os.path.join(place, name))), *files]:
            path = Path(place, name)
            entries.append(_entry(path, path.relative_to(directory).as_posix(), directory, ref))
    return digest_of(RECIPE_TAG, sorted(entries))


def _entry(path: Path, shown: str, directory: Path, ref: RecipeRef) -> tuple[str, str, str]:
    try:
        shown.encode()
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            if os.path.isabs(target) or not Path(os.path.realpath(path)).is_relative_to(directory):
                raise _refused(ref, f"`{shown}` in the recipe `{ref.name}` is a link that leads out of it")
            return shown, "link", target
        if not stat.S_ISREG(status.st_mode):
            raise _refused(ref, f"`{shown}` in the recipe `{ref.name}` is neither a file nor a directory")
        return shown, "program" if status.st_mode & 0o111 else "file", digest_bytes(path.read_bytes())
    except UnicodeEncodeError:
        raise _refused(ref, f"a file name in the recipe `{ref.name}` is not UTF-8") from None
    except OSError as error:
        message = f"`{shown}` in the recipe `{ref.name}` cannot be read: {error.strerror}"
        raise _refused(ref, message) from None


def _refused(ref: RecipeRef, message: str, hint: str | None = None, code: str = "recipe") -> SpecError:
    return SpecError((Issue(code, message, ref.span, hint=hint),))
