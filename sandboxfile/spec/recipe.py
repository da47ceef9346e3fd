"""Recipes: what a `use` list stands for. Reading a recipe's text is the caller's; the rest is pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from sandboxfile.declared import dataclass, replace
from sandboxfile.errors import Issue, Span, SpecError
from sandboxfile.spec.assemble import fragment_of
from sandboxfile.spec.decode import decode
from sandboxfile.spec.document import RECIPE
from sandboxfile.spec.fragment import Fragment
from sandboxfile.spec.model import ParamValue, RecipeInput
from sandboxfile.spec.node import Mapping, Node
from sandboxfile.spec.params import Given, declared, given_of, values_of
from sandboxfile.spec.shape import Found, Reader, Table
from sandboxfile.spec.template import render_node

MAX_RECIPES = 100


@dataclass(frozen=True)
class RecipeRef:
    """A recipe as it was asked for.

    name:   a shipped recipe's name, or a path that begins with `./` or `../`
    origin: the directory of the recipe that asks, empty for the Sandboxfile; paths are relative to it
    """

    name: str
    origin: str = ""
    span: Span | None = None


@dataclass(frozen=True)
class RecipeText:
    """A recipe that was found.

    name:        the one name it has however it was asked for; it stands in the lock
    directory:   where it is, which is the context of its files
    source_name: the name of its text in messages
    digest:      of its whole tree
    """

    name: str
    directory: str
    source_name: str
    data: bytes = field(repr=False)
    digest: str = ""


ReadRecipe = Callable[[RecipeRef], RecipeText]
"""Finds and reads a recipe. Raises SpecError, with the reference's span, when it cannot."""


@dataclass(frozen=True)
class _Step:
    """A recipe on the way from the Sandboxfile to the one that is being read."""

    name: str
    directory: str
    span: Span | None


class Expander:
    """Reads what `use` lists name, each recipe with the same parameters once, depth first."""

    def __init__(self, read_recipe: ReadRecipe | None, issues: list[Issue]) -> None:
        self.fragments: list[Fragment] = []
        self.inputs: list[RecipeInput] = []
        self._read_recipe = read_recipe
        self._issues = issues
        self._reader = Reader(issues)
        self._count = 0

    def expand(self, use: Found | None, trail: tuple[_Step, ...] = ()) -> None:
        """Add the fragments of the recipes a `use` list names, lowest first."""
        for item in use.value if use else ():
            named = item.value.get("recipe") if isinstance(item.value, dict) else item
            if named is not None:
                params = item.value.get("params") if isinstance(item.value, dict) else None
                self._recipe(named, given_of(params), trail)

    def _recipe(self, named: Found, given: dict[str, Given], trail: tuple[_Step, ...]) -> None:
        self._count += 1
        if self._count > MAX_RECIPES:
            if self._count == MAX_RECIPES + 1:
                self._reader.issue(
                    "too-large", f"more than {MAX_RECIPES} recipes are used", named.span, named.path
                )
            return
        if self._read_recipe is None:
            self._reader.issue(
                "recipe-not-found", f"the recipe `{named.value}` cannot be read here", named.span
            )
            return
        try:
            text = self._read_recipe(RecipeRef(named.value, trail[-1].directory if trail else "", named.span))
            step = _Step(text.name, text.directory, named.span)
            if any(text.directory == each.directory for each in trail):
                self._cycle(step, trail)
                return
            source, root = decode(text.source_name, text.data, "yaml", self._issues)
        except SpecError as error:
            self._issues.extend(issue for issue in error.issues if issue not in self._issues)
            return
        if not isinstance(root, Mapping):
            span = root.span if root else Span(source, 1, 1)
            self._reader.issue("wrong-type", "a recipe is a mapping of keys", span)
            return
        found, values = read_document(
            RECIPE,
            root,
            self._reader,
            given,
            owner=text.name,
            place=named.span,
            remedy=f"write `{{recipe: {named.value}, params: {{NAME: …}}}}`",
        )
        known = {name: value for name, value in values.items() if value is not None}
        recipe = RecipeInput(text.name, text.directory, text.digest, known, named.span)
        if recipe in self.inputs:
            return
        self.expand(found.value.get("use"), (*trail, step))
        self.inputs.append(recipe)
        self.fragments.append(fragment_of(found, self._reader, root=text.directory))

    def _cycle(self, last: _Step, trail: tuple[_Step, ...]) -> None:
        first = next(number for number, step in enumerate(trail) if step.directory == last.directory)
        around = [*trail[first:], last]
        path = " -> ".join(step.name for step in around)
        related = tuple((f"`{step.name}` is used here", step.span) for step in around[:-1] if step.span)
        hint = "a recipe cannot include itself; take one of these out"
        self._reader.issue(
            "recipe-cycle", f"recipes include each other: {path}", last.span, "use", hint, related
        )


def read_document(
    table: Table,
    root: Mapping,
    reader: Reader,
    given: dict[str, Given],
    *,
    owner: str,
    place: Span | None,
    remedy: str,
) -> tuple[Found, dict[str, ParamValue | None]]:
    """A document's values, its templates rendered with the parameters that are given."""
    params, flawed = declared(root.get("params"), reader)
    values = values_of(params, flawed, given, reader, owner=owner, place=place, remedy=remedy)
    rest: Node = replace(root, entries=tuple(entry for entry in root.entries if entry.key != "params"))
    rest = render_node(rest, values, reader.issues)
    found = reader.read(table, rest)
    if found is None:
        raise AssertionError("a mapping always has a value under a table")
    return found, values
