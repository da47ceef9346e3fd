"""The JSON Schema and the loader agree: they know the same keys, and accept the same good documents."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from spec_reading import SEED, issues

from sandboxfile.inputs.recipes import RecipeReader, shipped_directories
from sandboxfile.spec.document import DOCUMENT, RECIPE
from sandboxfile.spec.load import load
from sandboxfile.spec.schema import json_schema, recipe_schema
from sandboxfile.spec.shape import Key, Listing, Names, NotYet, OneOf, Shape, Table
from sandboxfile.spec.starter import starter

GOOD = (
    SEED,
    starter("tools"),
    """
    base: {debian: 13, mirror: https://mirror.example/debian, snapshot: 2026-11-01, components: [main]}
    params:
      port: {type: integer, default: 8000, help: the port}
      names: {type: list, default: [a, b], choices: [a, b], pattern: '[a-z]'}
    apt:
      packages: [jq]
      recommends: false
      sources:
        ours: {uris: [https://mirror.example/x], suites: trixie, components: [main], signed-by: key.asc}
    pip: {packages: [rich], index-url: https://index.example/simple, prereleases: true, build: [x], venv: /v}
    env: {A: 1, B: true, C: "{{ params.port }}"}
    files: [{content: hi, to: /etc/motd, mode: "0644", owner: "app:app"}, {from: a, to: /a, mode: 755}]
    run: [make, {run: fetch, network: true}, {run: get, network: [example.org], timeout: 5m, secrets: [T]}]
    verify: [{http: {path: /, status: 200}}, {run: x, exit: 3, stderr: e}]
    start: {command: serve, port: "{{ params.port }}"}
    resources: {memory: 1GiB, cpus: 2, pids: 100, disk: 10GB}
    network: {allow: [example.org]}
    secrets: [T, {name: U, env: V, hosts: [example.org]}]
    labels: {a: b}
    """,
    f"base: {{rootfs: 'https://mirror.example/root.tar', sha256: {'0' * 64}}}",
    "base: scratch\nnetwork: none\nstart: serve",
)


def strings_of(text: str) -> Any:
    """The document as an editor sees it; dates stay text."""
    return yaml.load(text, Loader=type("L", (yaml.SafeLoader,), {"yaml_implicit_resolvers": _resolvers()}))


def _resolvers() -> dict[str, Any]:
    kept = yaml.SafeLoader.yaml_implicit_resolvers.items()
    return {mark: [pair for pair in pairs if not pair[0].endswith("timestamp")] for mark, pairs in kept}


@pytest.mark.parametrize("text", GOOD)
def test_good_documents_pass_both(text: str) -> None:
    text = textwrap.dedent(text)
    assert issues(text) == ()
    jsonschema.validate(strings_of(text), json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "base: debian:13\nstesp: []",
        "apt: [jq]",
        "base: debian:13\nverify: [{run: x, timeout: 30}]",
        "base: debian:13\nfiles: [{from: a}]",
        "base: debian:13\nstart: {port: 80}",
        "base: debian:13\nstages: {}",
        "base: ubuntu:24.04",
        "base: debian:13\nresources: {memory: lots}",
        "base: debian:13\nnetwork: {alow: [x]}",
    ],
)
def test_bad_documents_fail_both(text: str) -> None:
    assert issues(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(strings_of(text), json_schema())


def test_the_schema_is_valid_itself() -> None:
    for schema in (json_schema(), recipe_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)


def tables(shape: Shape) -> Iterator[Table]:
    if isinstance(shape, Table):
        yield shape
        for key in shape.keys:
            yield from tables(key.shape)
    elif isinstance(shape, (Listing, Names)):
        yield from tables(shape.item)
    elif isinstance(shape, OneOf):
        for part in (shape.scalar, shape.sequence, shape.mapping, *shape.tables):
            if part is not None:
                yield from tables(part)


def properties(schema: Any) -> Iterator[frozenset[str]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield frozenset(schema["properties"])
        for name, part in schema.items():
            if name != "examples":
                yield from properties(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from properties(part)


@pytest.mark.parametrize(("table", "schema"), [(DOCUMENT, json_schema()), (RECIPE, recipe_schema())])
def test_schema_and_loader_know_the_same_keys(table: Table, schema: Any) -> None:
    known = {frozenset(key.name for key in each.keys) for each in tables(table)}
    assert set(properties(schema)) == known


def test_every_key_says_what_it_is() -> None:
    keys = [key for table in tables(DOCUMENT) for key in table.keys]
    assert all(key.doc.endswith((".", "otherwise.")) and len(key.doc) > 5 for key in keys)


@pytest.mark.parametrize("key", DOCUMENT.keys, ids=lambda key: key.name)
def test_the_examples_of_a_key_load(key: Key) -> None:
    if isinstance(key.shape, NotYet):
        return
    for example in key.examples:
        document = {"base": "debian:13", key.name: example}
        reader = RecipeReader(shipped_directories(), Path("/"))
        load("Sandboxfile", yaml.safe_dump(document).encode(), read_recipe=reader)
        jsonschema.validate(document, json_schema())


@pytest.mark.parametrize(
    "name", ["tools", "3.10", "true", "-x", "", "日本", "a" * 100, "a b", "null", "x: y"]
)
def test_the_starter_loads_for_every_directory_name(name: str) -> None:
    document = load("Sandboxfile", starter(name).encode())
    assert document.name
    assert document.verify
