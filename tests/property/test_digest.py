"""Laws of keys."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxfile.core import layer as layer_module
from sandboxfile.core.digest import canonical, digest_of, record_of, role
from sandboxfile.core.layer import LayerKey, PackagePin, StartCommand, TreeEntry, WheelPin

RECORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)

RECORD_CLASSES = [
    each
    for each in vars(layer_module).values()
    if isinstance(each, type) and dataclasses.is_dataclass(each) and each.__module__ == layer_module.__name__
]


@given(st.text(), RECORDS)
def test_a_preimage_can_be_decoded(tag: str, record: Any) -> None:
    assert json.loads(canonical(tag, record)) == [tag, record]


@given(RECORDS, RECORDS)
def test_two_records_never_share_a_digest(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest_of("t", one) == digest_of("t", other)) == same


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_names_does_not_matter(record: dict[str, int]) -> None:
    turned = dict(reversed(record.items()))
    assert canonical("t", record) == canonical("t", turned)


@pytest.mark.parametrize("value", [1.0, object(), {1: 2}, {"a": {1}}, b"bytes"])
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        record_of(value)


@pytest.mark.parametrize("kind", RECORD_CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_is_declared(kind: type) -> None:
    undeclared = [each.name for each in dataclasses.fields(kind) if role(each) is None]
    assert undeclared == []


def sample(annotation: Any) -> tuple[Any, Any]:
    """Two different values of a field's type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (str, LayerKey):
        return "one", "two"
    if annotation is int:
        return 1, 2
    if annotation is bool:
        return True, False
    if annotation is float:
        return 1.5, 2.5
    if origin is tuple:
        one, other = sample(arguments[0])
        return (one,), (one, other)
    if origin is Mapping:
        return {"a": "1"}, {"a": "2"}
    if type(None) in arguments:
        return None, sample(next(each for each in arguments if each is not type(None)))[0]
    made = {
        PackagePin: (PackagePin("n", "1", "amd64", "s"), PackagePin("n", "2", "amd64", "s")),
        WheelPin: (WheelPin("f", "s"), WheelPin("g", "s")),
        TreeEntry: (TreeEntry("/a", "file", 1), TreeEntry("/b", "file", 1)),
        StartCommand: (StartCommand("a"), StartCommand("b")),
    }
    return made[annotation]


FIELDS = [
    pytest.param(kind, each, id=f"{kind.__name__}.{each.name}")
    for kind in RECORD_CLASSES
    for each in dataclasses.fields(kind)
]


@pytest.mark.parametrize(("kind", "changed"), FIELDS)
def test_identity_moves_a_key_and_metadata_never_does(kind: Any, changed: dataclasses.Field[Any]) -> None:
    types = typing.get_type_hints(kind)
    values = {each.name: sample(types[each.name]) for each in dataclasses.fields(kind)}
    one = kind(**{name: pair[0] for name, pair in values.items()})
    other = dataclasses.replace(one, **{changed.name: values[changed.name][1]})
    moved = digest_of("t", one) != digest_of("t", other)
    assert moved == (role(changed) == "identity")
