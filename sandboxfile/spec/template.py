"""Templates in scalars: jinja2's expressions on parameters, nothing that calls out and nothing unbounded.

A template is checked node by node before it is compiled: what is not listed here does not exist. Results
are bounded in length, so that no file can make its reader run out of time or memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxfile.errors import Issue
from sandboxfile.spec import node as tree
from sandboxfile.spec.model import ParamValue
from sandboxfile.spec.node import Node, Scalar
from sandboxfile.spec.shape import did_you_mean, quote

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MARKS = ("{{", "{%", "{#")
MAX_LENGTH = 64 * 1024
"""Characters that a scalar may have before and after rendering."""

_NODES = frozenset(
    {
        "Add",
        "And",
        "Call",
        "Compare",
        "Concat",
        "CondExpr",
        "Const",
        "Filter",
        "For",
        "Getattr",
        "Getitem",
        "If",
        "Keyword",
        "List",
        "Name",
        "Neg",
        "Not",
        "Operand",
        "Or",
        "Output",
        "Pos",
        "Slice",
        "Sub",
        "Template",
        "TemplateData",
        "Test",
        "Tuple",
    }
)
_FILTERS = frozenset(
    {
        "d",
        "default",
        "first",
        "int",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "sort",
        "string",
        "trim",
        "unique",
        "upper",
    }
)
_TESTS = frozenset(
    {
        "boolean",
        "defined",
        "eq",
        "false",
        "ge",
        "gt",
        "in",
        "integer",
        "le",
        "lt",
        "ne",
        "none",
        "number",
        "string",
        "true",
        "undefined",
    }
)
_METHODS = frozenset(
    {"endswith", "lower", "removeprefix", "removesuffix", "split", "startswith", "strip", "upper"}
)


def holds_template(text: str) -> bool:
    """Whether a text has anything to render."""
    return any(mark in text for mark in MARKS)


def render_node(node: Node, values: Mapping[str, ParamValue | None], issues: list[Issue]) -> Node:
    """The tree with every template rendered. A value of None stands for a parameter whose problem has been
    reported; what needs it becomes `broken`."""
    if isinstance(node, Scalar):
        if node.kind == "broken" or not holds_template(node.text):
            return node
        return _render(node, values, issues)
    if isinstance(node, tree.Sequence):
        items = tuple(render_node(item, values, issues) for item in node.items)
        return tree.Sequence(items, node.span, node.size)
    entries = tuple(
        tree.Entry(entry.key, entry.key_span, render_node(entry.value, values, issues))
        for entry in node.entries
    )
    return tree.Mapping(entries, node.span, node.size)


class _Refused(Exception):
    """Something a template may not do, or cannot."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class _Broken(Exception):
    """The template needs a parameter that has no value; that was reported where it is declared."""


class _Params:
    """What `params` is inside a template: only the declared names, as attributes or items."""

    def __init__(self, values: Mapping[str, ParamValue | None]) -> None:
        self._values = values

    def value(self, name: object) -> object:
        if not isinstance(name, str) or name not in self._values:
            word = str(name)
            hint = did_you_mean(word, self._values) if self._values else "declare it under `params`"
            known = f"declared are: {', '.join(self._values)}" if self._values else None
            raise _Refused(f"no parameter is called {quote(word)}", hint or known)
        value = self._values[name]
        if value is None:
            raise _Broken
        return value

    def __str__(self) -> str:
        raise _Refused("`params` itself is not a text", "name one parameter: `{{ params.NAME }}`")


_environment: ImmutableSandboxedEnvironment | None = None


def _make_environment() -> ImmutableSandboxedEnvironment:
    global _environment
    if _environment is not None:
        return _environment
    import jinja2.debug  # noqa: F401  (imported lazily on the first error otherwise, in the pure middle)
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            return obj.value(attribute) if isinstance(obj, _Params) else super().getattr(obj, attribute)

        def getitem(self, obj: Any, argument: Any) -> Any:
            return obj.value(argument) if isinstance(obj, _Params) else super().getitem(obj, argument)

    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0, optimized=False)
    made.globals.clear()
    made.filters = {name: call for name, call in made.filters.items() if name in _FILTERS}
    made.filters["join"] = _join
    made.tests = {name: call for name, call in made.tests.items() if name in _TESTS}
    _environment = made
    return made


def _join(values: Any, separator: object = "") -> str:
    items = [str(value) for value in values]
    if sum(map(len, items)) + len(str(separator)) * len(items) > MAX_LENGTH:
        raise _Refused(f"the template's result is longer than {MAX_LENGTH} characters")
    return str(separator).join(items)


def _render(scalar: Scalar, values: Mapping[str, ParamValue | None], issues: list[Issue]) -> Scalar:
    broken = Scalar("", "broken", scalar.span)
    try:
        return Scalar(_text(scalar.text, values), "rendered", scalar.span, scalar.size)
    except _Broken:
        return broken
    except _Refused as refused:
        message, hint = refused.message, refused.hint
    except Exception as error:
        # A template is code: whatever it raises is a problem of the file, not of ours.
        message, hint = _explain(error, values)
    issues.append(Issue("template", message, scalar.span, hint=hint))
    return broken


def _text(text: str, values: Mapping[str, ParamValue | None]) -> str:
    if len(text) > MAX_LENGTH:
        raise _Refused(f"a text with a template is limited to {MAX_LENGTH} characters")
    environment = _make_environment()
    parsed = environment.parse(text)
    _check(parsed, loops=0)
    pieces: list[str] = []
    length = 0
    for piece in environment.from_string(parsed).generate({"params": _Params(values)}):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_LENGTH:
            raise _Refused(f"the template's result is longer than {MAX_LENGTH} characters")
    return "".join(pieces)


def _check(node: nodes.Node, *, loops: int) -> None:
    kind = type(node).__name__
    if kind not in _NODES:
        raise _Refused(f"templates have no `{_word(kind)}`", "use parameters, conditions and simple filters")
    name = getattr(node, "name", None)
    if kind == "Filter" and name not in _FILTERS:
        raise _Refused(f"templates have no filter `{name}`", did_you_mean(str(name), _FILTERS))
    if kind == "Test" and name not in _TESTS:
        raise _Refused(f"templates have no test `{name}`", did_you_mean(str(name), _TESTS))
    if kind == "Call":
        called = getattr(node, "node", None)
        if type(called).__name__ != "Getattr" or getattr(called, "attr", None) not in _METHODS:
            raise _Refused("templates cannot call this", f"what can be called: {', '.join(sorted(_METHODS))}")
    if kind == "For":
        over = getattr(node, "iter", None)
        if type(over).__name__ != "Getattr":
            raise _Refused("templates loop over parameters only", "write `{% for x in params.NAME %}`")
        loops += 1
        if loops > 1 or getattr(node, "recursive", False):
            raise _Refused("templates cannot nest loops")
    for child in node.iter_child_nodes():
        _check(child, loops=loops)


def _word(kind: str) -> str:
    words = {"Assign": "set", "AssignBlock": "set", "CallBlock": "call", "FilterBlock": "filter", "Mul": "*"}
    words |= {"Pow": "**", "Mod": "%", "Div": "/", "FloorDiv": "//", "FromImport": "import"}
    return words.get(kind, kind.lower())


def _explain(error: Exception, values: Mapping[str, ParamValue | None]) -> tuple[str, str | None]:
    from jinja2 import TemplateSyntaxError, UndefinedError

    if isinstance(error, UndefinedError):
        message = str(error.message or "something in the template is undefined").replace("'", "`").rstrip(".")
        name = message.split("`")[1] if "`" in message else ""
        near = f"did you mean `params.{name}`?" if name in values else did_you_mean(name, ["params"])
        return message, near or "only `params` is known in templates"
    if isinstance(error, TemplateSyntaxError):
        message = str(error.message or "it cannot be parsed").rstrip(".").replace("'", "`")
        hint = "literal braces are written `{{ '{{' }}`"
        return f"the template cannot be parsed: {message[:1].lower()}{message[1:]}", hint
    if isinstance(error, RecursionError):
        return "the template is nested too deeply", None
    reason = (str(error).splitlines() or [""])[0].rstrip(".")[:200] or type(error).__name__
    return f"the template fails: {reason}", None
