"""YAML text to a Node tree, composed from the parser's events.

Composing by hand instead of loading keeps the text of every scalar, notices a key that is given twice,
counts what aliases expand to, and needs no recursion however deep the text is nested.
"""

from __future__ import annotations

from typing import Any

import yaml

from sandboxfile.errors import Issue, Source, Span, SpecError
from sandboxfile.spec.decode import MAX_DEPTH, MAX_NODES
from sandboxfile.spec.node import Entry, Locator, Mapping, Node, Scalar, Sequence

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_CORE_TAGS = frozenset(_TAG + word for word in ("str", "int", "float", "bool", "null", "map", "seq"))
_TOO_DEEP = f"values are nested deeper than {MAX_DEPTH} levels"


class _Open:
    """A collection whose end has not come yet. `parts` are its keys and values in turn, or its items."""

    def __init__(self, event: Any, *, is_mapping: bool) -> None:
        self.event = event
        self.is_mapping = is_mapping
        self.parts: list[Node] = []


def compose(source: Source, issues: list[Issue]) -> Node | None:
    """The tree of a YAML document, None for an empty one. Raises SpecError when it cannot be parsed."""
    return _Composer(source, issues).compose()


class _Composer:
    def __init__(self, source: Source, issues: list[Issue]) -> None:
        self.source = source
        self.issues = issues
        self.locator = Locator(source)
        self.anchors: dict[str, Node | None] = {}
        self.open: list[_Open] = []
        self.root: Node | None = None

    def compose(self) -> Node | None:
        loader = None
        documents = 0
        try:
            # The reader checks the first characters when the loader is made.
            loader = _Loader(self.source.text)
            while loader.check_event():
                event = loader.get_event()
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._stop(
                            "syntax", "a Sandboxfile is one YAML document; a second one starts here", event
                        )
                elif isinstance(event, yaml.NodeEvent):
                    self._node(event)
                elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                    self._end(event)
        except yaml.YAMLError as error:
            raise SpecError((*self.issues, self._syntax(error))) from None
        finally:
            if loader is not None:
                loader.dispose()
        return None if isinstance(self.root, Scalar) and self.root.is_null else self.root

    def _node(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event))
            return
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if event.tag is not None and event.tag != "!" and event.tag not in _CORE_TAGS:
            tag = event.tag.replace(_TAG, "!!")
            self._issue("syntax", f"the tag `{tag}` has no meaning in a Sandboxfile", event, "leave it out")
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0] if event.tag is None else event.tag not in ("!", _TAG + "str")
            text = event.value
            node = Scalar(text, "plain" if plain else "quoted", self._span(event), 1 + len(text) // 64)
            self._close(event, node)
            return
        if len(self.open) >= MAX_DEPTH:
            self._stop("too-deep", _TOO_DEEP, event)
        self.open.append(_Open(event, is_mapping=isinstance(event, yaml.MappingStartEvent)))

    def _end(self, event: Any) -> None:
        opened = self.open.pop()
        start, end = opened.event.start_mark, event.end_mark
        span = self.locator.between(start.line, start.column, end.line, end.column)
        size = 1 + sum(part.size for part in opened.parts)
        if size > MAX_NODES:
            self._stop("too-large", f"the document expands to more than {MAX_NODES} values", opened.event)
        node: Node
        if opened.is_mapping and self._bare_template(opened):
            node = Scalar("", "broken", span)
        elif opened.is_mapping:
            node = Mapping(self._entries(opened), span, size)
        else:
            node = Sequence(tuple(opened.parts), span, size)
        self._close(opened.event, node)

    def _close(self, event: Any, node: Node) -> None:
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        self._add(node)

    def _add(self, node: Node) -> None:
        if self.open:
            self.open[-1].parts.append(node)
        else:
            self.root = node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            self._issue("syntax", f"nothing is anchored as `&{event.anchor}`", event)
        elif (node := self.anchors[event.anchor]) is None:
            self._issue("syntax", f"the alias `*{event.anchor}` stands inside what it stands for", event)
        else:
            return node
        return Scalar("", "broken", self._span(event))

    def _entries(self, opened: _Open) -> tuple[Entry, ...]:
        entries: dict[str, Entry] = {}
        merged: list[Node] = []
        for key, value in zip(opened.parts[::2], opened.parts[1::2], strict=True):
            if not isinstance(key, Scalar):
                self.issues.append(Issue("syntax", "a key must be text", key.span))
            elif key.kind == "plain" and key.text == "<<":
                merged.append(value)
            elif (first := entries.get(key.text)) is not None:
                self.issues.append(duplicate_key(key.text, key.span, first.key_span))
            else:
                entries[key.text] = Entry(key.text, key.span, value)
        for node in merged:
            self._merge(node, entries)
        return tuple(entries.values())

    def _merge(self, node: Node, entries: dict[str, Entry]) -> None:
        for part in node.items if isinstance(node, Sequence) else (node,):
            if isinstance(part, Mapping):
                for entry in part.entries:
                    entries.setdefault(entry.key, entry)
            elif not (isinstance(part, Scalar) and part.kind == "broken"):
                self.issues.append(Issue("syntax", "`<<` takes a mapping or a list of mappings", part.span))

    def _bare_template(self, opened: _Open) -> bool:
        """Whether a mapping is a template without quotes, which is then reported."""
        for key in opened.parts[::2]:
            line = key.span.source.line(key.span.line)
            if isinstance(key, Mapping) and line[key.span.column - 2 : key.span.column] == "{{":
                hint = "write '{{ … }}'; bare braces are YAML's mappings"
                self.issues.append(Issue("syntax", "a template must stand in quotes", key.span, hint=hint))
                return True
        return False

    def _span(self, event: Any) -> Span:
        start, end = event.start_mark, event.end_mark
        return self.locator.between(start.line, start.column, end.line, end.column)

    def _issue(self, code: str, message: str, event: Any, hint: str | None = None) -> None:
        self.issues.append(Issue(code, message, self._span(event), hint=hint))

    def _stop(self, code: str, message: str, event: Any) -> None:
        raise SpecError((*self.issues, Issue(code, message, self._span(event))))

    def _syntax(self, error: yaml.YAMLError) -> Issue:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        if mark is not None:
            span = self.locator.span(mark.line, mark.column)
            problem = (
                getattr(error, "problem", None) or getattr(error, "context", None) or "it cannot be parsed"
            )
            if "nesting depth" in problem:
                # libyaml looks ahead for a key, and meets its own limit before the event of ours.
                return Issue("too-deep", _TOO_DEEP, span)
            context = getattr(error, "context", None)
            hint = _hint(problem, self.source.line(span.line), span.column)
            related: tuple[tuple[str, Span], ...] = ()
            opened = getattr(error, "context_mark", None)
            if context and opened is not None and opened.line != mark.line:
                related = ((context, self.locator.span(opened.line, opened.column)),)
            return Issue("syntax", f"this is not YAML: {problem}", span, hint=hint, related=related)
        position = getattr(error, "position", None)
        if isinstance(position, int):
            character = getattr(error, "character", None)
            number = ord(character) if isinstance(character, str) else character
            what = f"the control character U+{number:04X} " if isinstance(number, int) else "this character "
            span = self.locator.at(self._offset(position, number))
            return Issue("syntax", f"this is not YAML: {what}is not allowed", span)
        return Issue("syntax", "this is not YAML", self.locator.span(0, 0))

    def _offset(self, position: int, character: object) -> int:
        # The C reader counts bytes, the other one characters.
        text = self.source.text
        if isinstance(character, int) and text[position : position + 1] != chr(character):
            return len(text.encode()[:position].decode(errors="ignore"))
        return position


def duplicate_key(key: str, span: Span, first: Span) -> Issue:
    """The Issue for a key that a mapping holds twice."""
    return Issue(
        "duplicate-key", f"the key `{key}` is given twice", span, related=(("first given here", first),)
    )


def _hint(problem: str, line: str, column: int) -> str | None:
    if "\t" in line[: max(column, 1)]:
        return "YAML is indented with spaces, never with tabs"
    if "escape character" in problem:
        return "in double quotes a backslash starts an escape; use single quotes for patterns"
    if "{%" in line or "{{" in line:
        return "put a value that holds a template in quotes"
    if "mapping values are not allowed" in problem:
        return "put text that holds `: ` in quotes"
    return None
