"""Parameters: what a document declares, and the values they get."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sandboxfile.declared import dataclass
from sandboxfile.errors import Span
from sandboxfile.spec.model import ParamValue
from sandboxfile.spec.node import Node
from sandboxfile.spec.sections import PARAMS
from sandboxfile.spec.shape import Found, Integer, Reader, Unfit, boolean, did_you_mean, quote, whole
from sandboxfile.spec.template import holds_template

_WHOLE = Integer(-(2**53), 2**53)
MAX_TEXT = 4096
MAX_ITEMS = 256


@dataclass(frozen=True)
class Param:
    """A declared parameter. `default` is None for one that must be given."""

    name: str
    type: str
    default: ParamValue | None
    choices: tuple[str, ...]
    pattern: str | None
    span: Span

    def value(self, given: str | tuple[str, ...]) -> ParamValue:
        """The typed value of what was given. Raises Unfit."""
        if self.type == "list":
            items = given if isinstance(given, tuple) else tuple(_split(given))
            if len(items) > MAX_ITEMS:
                raise Unfit(f"`{self.name}` takes at most {MAX_ITEMS} values")
            for item in items:
                self._check(item)
            return items
        if isinstance(given, tuple):
            raise Unfit(f"`{self.name}` is one {self.type}, not a list")
        if self.type == "boolean":
            return boolean(given)
        self._check(given)
        return whole(given, _WHOLE) if self.type == "integer" else given

    def _check(self, text: str) -> None:
        if len(text) > MAX_TEXT or "\0" in text:
            raise Unfit(
                f"a value of `{self.name}` is longer than {MAX_TEXT} characters or holds a NUL character"
            )
        if self.choices and text not in self.choices:
            hint = did_you_mean(text, self.choices) or f"choose one of {', '.join(self.choices)}"
            raise Unfit(f"{quote(text)} is not a choice for `{self.name}`", hint=hint)
        if self.pattern is not None and re.fullmatch(self.pattern, text) is None:
            raise Unfit(f"{quote(text)} does not match the pattern {quote(self.pattern)} of `{self.name}`")


@dataclass(frozen=True)
class Given:
    """A value for a parameter, and where it was given (None: on the command line)."""

    value: str | tuple[str, ...]
    span: Span | None = None


def given_of(found: Found | None) -> dict[str, Given]:
    """The values of a `params:` mapping of a `use` entry."""
    if found is None:
        return {}
    return {name: Given(_plain(each), each.span) for name, each in found.value.items()}


def declared(node: Node | None, reader: Reader) -> tuple[dict[str, Param], frozenset[str]]:
    """The parameters that a `params` section declares, and the names of those that have problems."""
    if node is None:
        return {}, frozenset()
    before = len(reader.issues)
    found = reader.read(PARAMS, node, "params")
    flawed = {issue.path.split(".")[1] for issue in reader.issues[before:] if "." in issue.path}
    params: dict[str, Param] = {}
    for name, each in found.value.items() if found else ():
        bare = Param(
            name,
            each.get("type", "string"),
            None,
            each.values("choices"),
            each.get("pattern"),
            each.span,
        )
        params[name] = bare
        if (default := each.value.get("default")) is not None:
            try:
                value = bare.value(_without_template(default))
            except Unfit as unfit:
                reader.issue(unfit.code, unfit.message, default.span, default.path, unfit.hint)
                flawed.add(name)
            else:
                params[name] = Param(name, bare.type, value, bare.choices, bare.pattern, bare.span)
    return params, frozenset(flawed)


def values_of(
    params: Mapping[str, Param],
    flawed: frozenset[str],
    given: Mapping[str, Given],
    reader: Reader,
    *,
    owner: str,
    place: Span | None,
    remedy: str,
) -> dict[str, ParamValue | None]:
    """A value for each parameter; None for one that has a problem, which is in the issues.

    owner:  whose parameters they are, for messages (`Sandboxfile`, a recipe's name)
    place:  where to report a value that is missing, if not at its declaration
    remedy: how a missing value is given, with `NAME` for its name
    """
    values: dict[str, ParamValue | None] = dict.fromkeys(flawed)
    for name, param in params.items():
        one = given.get(name)
        if one is None:
            values[name] = None if name in flawed else param.default
            if param.default is None and name not in flawed:
                message = f"`{owner}` needs a value for its parameter `{name}`"
                related = (("declared here", param.span),) if place else ()
                reader.issue(
                    "missing-param", message, place or param.span, "", remedy.replace("NAME", name), related
                )
            continue
        try:
            values[name] = param.value(one.value)
        except Unfit as unfit:
            values[name] = None
            related = (("declared here", param.span),)
            reader.issue(unfit.code, unfit.message, one.span, f"params.{name}", unfit.hint, related)
    for name, one in given.items():
        if name not in params and name not in flawed:
            hint = did_you_mean(name, params) or (f"it has: {', '.join(params)}" if params else "it has none")
            reader.issue("unknown-param", f"`{owner}` has no parameter {quote(name)}", one.span, "", hint)
    return values


def _without_template(found: Found) -> str | tuple[str, ...]:
    given = _plain(found)
    if any(holds_template(text) for text in (given if isinstance(given, tuple) else (given,))):
        raise Unfit("a default cannot hold a template", hint="use the template where the parameter is used")
    return given


def _plain(found: Found) -> str | tuple[str, ...]:
    return found.values() if isinstance(found.value, list) else str(found.value)


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
