"""Dataclasses that are generated when they are first used are dataclasses in every respect."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from sandboxfile.declared import dataclass


def declare() -> tuple[type, type]:
    """A class and a subclass that nobody has used yet."""

    @dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2
        tags: list[str] = field(default_factory=list)

    @dataclass(frozen=True)
    class Named(Point):
        name: str = ""

        def __post_init__(self) -> None:
            if self.name == "bad":
                raise ValueError(self.name)

    return Point, Named


def is_generated(cls: type) -> bool:
    return "__eq__" in cls.__dict__


def test_a_class_is_generated_by_its_first_instance_and_not_before() -> None:
    point, named = declare()
    assert not is_generated(point)
    assert point(1).y == 2
    assert is_generated(point)
    assert not is_generated(named)


def test_instances_are_equal_printed_frozen_and_hashed_as_ever() -> None:
    @dataclass(frozen=True)
    class Pair:
        left: int
        right: int = 0

    assert Pair(1) == Pair(left=1, right=0) != Pair(2)
    assert hash(Pair(1)) == hash(Pair(1))
    assert repr(Pair(1)).endswith("Pair(left=1, right=0)")
    assert copy.deepcopy(Pair(3)) == Pair(3)
    with pytest.raises(FrozenInstanceError):
        Pair(1).left = 2  # type: ignore[misc]


def test_a_wrong_first_call_is_a_type_error_and_leaves_the_class_usable() -> None:
    point, _ = declare()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        point()
    assert point(1).x == 1


def test_a_subclass_generates_what_it_stands_on() -> None:
    point, named = declare()
    assert named(1, name="n") == named(1, 2, [], "n")
    assert is_generated(point)
    with pytest.raises(ValueError, match="bad"):
        named(1, name="bad")


def test_fields_can_be_asked_for_before_there_is_an_instance() -> None:
    _, named = declare()
    assert [each.name for each in dataclasses.fields(named)] == ["x", "y", "tags", "name"]


def test_the_standard_decorator_can_extend_a_class_that_was_not_used() -> None:
    point, _ = declare()

    @dataclasses.dataclass(frozen=True)
    class Third(point):  # type: ignore[misc, valid-type]
        z: int = 3

    assert dataclasses.astuple(Third(1)) == (1, 2, [], 3)


def test_an_ordinary_subclass_can_call_the_generated_initialiser() -> None:
    point, _ = declare()

    class Special(point):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(7)

    assert Special().x == 7


def test_replace_and_patterns_work() -> None:
    @dataclass
    class Size:
        rows: int
        columns: int = 80

    size: Any = dataclasses.replace(Size(1), columns=3)
    match size:
        case Size(rows, columns=columns):
            assert (rows, columns) == (1, 3)
        case _:
            pytest.fail("the pattern does not match")
