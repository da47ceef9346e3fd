"""Dataclasses whose methods are not generated are dataclasses in every respect."""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, field
from typing import Any, ClassVar

import pytest

from sandboxfile.declared import _MANY, dataclass, replace


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


def is_compiled(cls: Any) -> bool:
    return bool(cls.__init__.__code__.co_filename == "<string>")


def test_nothing_is_compiled_for_a_few_instances_and_an_initialiser_for_many() -> None:
    point, named = declare()
    made = [point(number) for number in range(_MANY)]
    assert not is_compiled(point)
    made.append(point(_MANY))
    assert is_compiled(point)
    assert [each.x for each in made] == list(range(_MANY + 1))
    assert made[3] == point(3) != point(3, 4)
    assert not is_compiled(named)


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
    with pytest.raises(TypeError, match="multiple values for argument 'x'"):
        point(1, x=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        point(1, z=1)
    assert point(1).x == 1


def test_a_subclass_has_the_fields_of_what_it_stands_on() -> None:
    _, named = declare()
    assert named(1, name="n") == named(1, 2, [], "n")
    with pytest.raises(ValueError, match="bad"):
        named(1, name="bad")


def test_fields_can_be_asked_for_before_there_is_an_instance() -> None:
    _, named = declare()
    assert [each.name for each in dataclasses.fields(named)] == ["x", "y", "tags", "name"]


def test_asking_for_fields_leaves_instances_alike() -> None:
    point, named = declare()
    before = named(1, name="n")
    assert dataclasses.is_dataclass(named)
    assert dataclasses.asdict(before) == {"x": 1, "y": 2, "tags": [], "name": "n"}
    assert before == named(1, name="n")
    assert point(1).tags == []
    assert dataclasses.replace(before, x=5) == named(5, name="n")


def test_a_variable_of_the_class_is_no_field_of_a_subclass() -> None:
    @dataclass(frozen=True)
    class Kind:
        word: ClassVar[str] = "kind"

    @dataclass(frozen=True)
    class Special(Kind):
        word: ClassVar[str] = "special"
        path: str = ""

    assert dataclasses.fields(Kind) == ()
    assert vars(Special("/x")) == {"path": "/x"}
    assert [each.name for each in dataclasses.fields(Special)] == ["path"]


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

    size: Any = replace(Size(1), columns=3)
    assert size == dataclasses.replace(Size(1), columns=3)
    match size:
        case Size(rows, columns=columns):
            assert (rows, columns) == (1, 3)
        case _:
            pytest.fail("the pattern does not match")


def test_replace_refuses_what_is_no_field() -> None:
    point, _ = declare()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        replace(point(1), z=2)


def test_what_is_not_compared_or_printed_is_left_out() -> None:
    @dataclass(frozen=True)
    class Note:
        text: str
        place: int = field(default=0, compare=False, repr=False)

    assert Note("a", 1) == Note("a", 2)
    assert hash(Note("a", 1)) == hash(Note("a", 2))
    assert repr(Note("a", 1)).endswith("Note(text='a')")
    assert Note.place == 0


def test_what_is_not_frozen_can_be_set_and_has_no_hash() -> None:
    @dataclass
    class Counter:
        count: int
        step: int = field(default=1, init=False)

    counter = Counter(1)
    counter.count += counter.step
    assert counter.count == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)


def test_what_has_an_order_is_compared_by_its_fields() -> None:
    @dataclass(frozen=True, order=True)
    class Version:
        major: int
        minor: int = 0

    assert sorted([Version(2), Version(1, 5), Version(1)]) == [Version(1), Version(1, 5), Version(2)]
    assert Version(1) <= Version(1) < Version(1, 1)
    with pytest.raises(TypeError, match="not supported between"):
        _ = Version(1) < (1, 0)


def test_methods_that_a_class_defines_stay() -> None:
    @dataclass(frozen=True)
    class Loud:
        name: str

        def __repr__(self) -> str:
            return self.name.upper()

    assert repr(Loud("a")) == "A"
    assert Loud("a") == Loud("a")


def test_threads_that_make_the_first_instances_together_agree() -> None:
    point, _ = declare()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(point, range(4 * _MANY)))
    assert [each.x for each in made] == list(range(4 * _MANY))
