"""The JSON Schema that editors use, derived from the same tables that the loader reads."""

from __future__ import annotations

from typing import Any

from sandboxfile.spec.document import DOCUMENT, RECIPE
from sandboxfile.spec.shape import (
    Boolean,
    Integer,
    Key,
    Listing,
    Names,
    NotYet,
    Number,
    Shape,
    Table,
    Text,
)

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEMPLATE: dict[str, Any] = {"$ref": "#/$defs/template"}


def json_schema() -> dict[str, Any]:
    """The schema of a Sandboxfile, draft 2020-12. What only the loader can tell (that a pattern compiles,
    that a secret is declared) is not in it."""
    return _document(
        DOCUMENT, "Sandboxfile", "A declarative environment: base, packages, files, steps, checks."
    )


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe.yaml."""
    return _document(RECIPE, "recipe.yaml", "A reusable fragment of a Sandboxfile with parameters.")


def _document(table: Table, title: str, description: str) -> dict[str, Any]:
    template = {
        "type": "string",
        "pattern": r"\{\{|\{%|\{#",
        "description": "A template: `{{ params.NAME }}`.",
    }
    return {
        "$schema": _DIALECT,
        "title": title,
        "description": description,
        **_schema(table),
        "$defs": {"template": template},
    }


def _schema(shape: Shape) -> dict[str, Any]:
    if isinstance(shape, Text):
        return _text(shape)
    if isinstance(shape, Integer):
        bounds = {"type": "integer", "minimum": shape.minimum, "maximum": shape.maximum}
        return {"anyOf": [bounds, _TEMPLATE]}
    if isinstance(shape, Number):
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _TEMPLATE]}
    if isinstance(shape, Boolean):
        return {"anyOf": [{"type": "boolean"}, _TEMPLATE]}
    if isinstance(shape, Listing):
        return {"type": "array", "items": _schema(shape.item)}
    if isinstance(shape, Table):
        return _table(shape)
    if isinstance(shape, Names):
        names = {"pattern": shape.name.pattern} if shape.name.pattern else {"type": "string"}
        return {"type": "object", "propertyNames": names, "additionalProperties": _schema(shape.item)}
    if isinstance(shape, NotYet):
        return {"not": {}}
    parts = [part for part in (shape.scalar, shape.sequence, shape.mapping, *shape.tables) if part]
    return {"anyOf": [_schema(part) for part in parts]}


def _text(shape: Text) -> dict[str, Any]:
    if shape.choices:
        return {"anyOf": [{"enum": list(shape.choices)}, _TEMPLATE]}
    if shape.pattern:
        own: list[dict[str, Any]] = [{"type": "string", "pattern": shape.pattern}]
        return {"anyOf": [*own, *([{"type": "integer"}] if shape.numeric else []), _TEMPLATE]}
    return {"type": ["string", "number", "boolean"] if shape.numeric else "string"}


def _table(table: Table) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {key.name: _property(key) for key in table.keys},
        "additionalProperties": False,
    }
    required = [key.name for key in table.keys if key.required]
    return {**schema, "required": required} if required else schema


def _property(key: Key) -> dict[str, Any]:
    extra: dict[str, Any] = {"description": key.doc}
    if key.examples:
        extra["examples"] = list(key.examples)
    return {**extra, **_schema(key.shape)}
