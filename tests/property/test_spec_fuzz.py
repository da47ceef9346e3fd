"""Whatever the bytes: a document or a SpecError, and a report for each of its issues."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from sandboxfile.errors import Issue, SpecError
from sandboxfile.spec.decode import Format
from sandboxfile.spec.document import DOCUMENT
from sandboxfile.spec.load import load
from sandboxfile.spec.packages import canonical_requirement
from sandboxfile.spec.shape import Listing, Names, OneOf, Shape, Table
from sandboxfile.spec.source import render_issues

FORMATS = st.sampled_from(["yaml", "toml", "pyproject"])
GOLDEN = Path(__file__).parent.parent / "golden" / "errors"
CORPUS = [
    file.read_bytes() for file in sorted(GOLDEN.glob("*/*")) if file.suffix != ".txt" and file.is_file()
]
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def loads_or_reports(data: bytes, form: Format) -> None:
    found = problems(data, form)
    text = render_issues(found)
    assert "\x1b" not in text
    assert all(issue.span is None or issue.span.line >= 1 for issue in found)


def problems(data: bytes, form: Format) -> tuple[Issue, ...]:
    try:
        load("Sandboxfile", data, format=form)
    except SpecError as error:
        return error.issues
    return ()


@given(st.binary(max_size=300), FORMATS)
@RELAXED
def test_any_bytes(data: bytes, form: Format) -> None:
    loads_or_reports(data, form)


@given(st.text(max_size=300), FORMATS)
@example("? [a]\n: b", "yaml")
@example("a: !!binary x", "yaml")
@example("\ud7ff\ue000\ufffe", "yaml")
@example("a\x85b: c\u2028d", "yaml")
@example("a = 1979-05-27T07:32:00Z", "toml")
@example("a = 99999999999999999999999999999999", "toml")
@example("a = '''\n", "toml")
@example("[a.b]\n[[a]]", "toml")
@example("base: debian:13\nverify: [{run: x, stdout: '[[a]'}]", "yaml")
@example("base: debian:13\nverify: [{run: x, exit: 99999999999999999999999}]", "yaml")
@example("base: debian:13\nresources: {cpus: nan, memory: 999999999999999TiB}", "yaml")
@RELAXED
def test_any_text(text: str, form: Format) -> None:
    loads_or_reports(text.encode("utf-8", "surrogatepass"), form)


@given(st.data())
@RELAXED
def test_any_mutation_of_a_known_bad_file(data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(CORPUS))
    start = data.draw(st.integers(0, len(one)))
    end = data.draw(st.integers(start, min(len(one), start + 20)))
    loads_or_reports(one[:start] + data.draw(st.binary(max_size=8)) + one[end:], data.draw(FORMATS))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["debian:13", "/a", "30s", "a.b", "{{ params.x }}", "{{", "x=1", "1.5GB", "none", "-r a", "[", "a@b"]
    ),
)


def values(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Documents that mostly have the right form and mostly the wrong values."""
    if isinstance(shape, Table):
        chosen = {key.name: values(key.shape, depth + 1) for key in shape.keys}
        return st.fixed_dictionaries({}, optional=chosen)
    if isinstance(shape, Listing):
        return st.lists(values(shape.item, depth + 1), max_size=3)
    if isinstance(shape, Names):
        return st.dictionaries(st.text(min_size=1, max_size=5), values(shape.item, depth + 1), max_size=3)
    if isinstance(shape, OneOf):
        parts = [part for part in (shape.scalar, shape.sequence, shape.mapping, *shape.tables) if part]
        return st.one_of(*(values(part, depth + 1) for part in parts))
    return st.one_of(SCALARS, st.lists(SCALARS, max_size=2)) if depth < 3 else SCALARS


@given(values(DOCUMENT))
@RELAXED
def test_any_document_of_about_the_right_form(document: Any) -> None:
    loads_or_reports(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"), "yaml")


NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: not name.endswith((".txt", ".in", ".whl", ".zip"))
)
CLAUSES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["==", "!=", "<=", ">=", "<", ">", "~=", " == ", ">= "]),
    st.sampled_from(["1", "1.2", "2.0.1", "1.0rc1", "1!2", "1.2.*"]),
    st.sampled_from(["", " "]),
)


@given(NAMES, st.lists(NAMES.filter(str.isalnum), max_size=2), st.lists(CLAUSES, max_size=3))
@RELAXED
def test_the_short_way_to_a_canonical_requirement_agrees_with_packaging(
    name: str, extras: list[str], clauses: list[str]
) -> None:
    from sandboxfile.spec.packages import _canonical
    from sandboxfile.spec.shape import Unfit

    text = name + (f"[{', '.join(extras)}]" if extras else "") + ",".join(clauses)
    try:
        Requirement(text)
    except ValueError:
        with pytest.raises(Unfit):
            canonical_requirement(text)
        return
    assert canonical_requirement(text) == _canonical(text)
    assert canonical_requirement(canonical_requirement(text)) == canonical_requirement(text)


@pytest.fixture
def no_io() -> Iterator[None]:
    """Nothing opens a file, a socket or a process meanwhile."""
    watching = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        # An import reads modules; that is not the work that is watched here.
        if watching[0] and event.split(".")[0] in ("open", "socket", "subprocess"):
            raise AssertionError(f"{event} {arguments!r}")

    sys.addaudithook(hook)
    yield
    watching[0] = False


def test_loading_opens_nothing(no_io: None) -> None:
    for form in ("yaml", "toml"):
        for data in CORPUS:
            loads_or_reports(data, form)


def _imported_before() -> None:
    """The lazy imports happen once, before anything is watched."""
    for data in CORPUS:
        loads_or_reports(data, "yaml")
        loads_or_reports(data, "toml")


_imported_before()
