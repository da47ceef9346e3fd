from __future__ import annotations

import pytest

from sandboxfile.inputs.relations import Relation, compare, relations

# In order, the oldest first; those in one row are equal.
VERSIONS = (
    ("1.0~~",),
    ("1.0~rc1-1",),
    ("1.0~rc1-2",),
    ("1.0", "0:1.0", "1.00", "1.0-0"),
    ("1.0-1~bpo12+1",),
    ("1.0-1", "1.0-01"),
    ("1.0-1+b1",),
    ("1.0-1.1",),
    ("1.0-10",),
    ("1.0a-1",),
    ("1.0+dfsg-1",),
    ("1.0.1-1",),
    ("1.2-3-4",),
    ("1.10-1",),
    ("1:0.1",),
)


def test_versions_are_ordered_as_dpkg_orders_them() -> None:
    for number, row in enumerate(VERSIONS):
        for left in row:
            for other_number, other in enumerate(VERSIONS):
                for right in other:
                    order = compare(left, right)
                    assert (order > 0) - (order < 0) == (number > other_number) - (number < other_number)


def test_relations_are_read_with_their_alternatives() -> None:
    assert relations("libc6 (>= 2.41), a:any | b(<<1.0~) ,\n c,") == (
        (Relation("libc6", ">=", "2.41"),),
        (Relation("a"), Relation("b", "<<", "1.0~")),
        (Relation("c"),),
    )
    assert relations("") == ()


@pytest.mark.parametrize("field", ["a b", "a (>= )", "(>= 1)", "a (~ 1)", "a [amd64]"])
def test_what_is_no_relation_is_told(field: str) -> None:
    with pytest.raises(ValueError, match="is no relation"):
        relations(field)


def test_a_relation_accepts_versions() -> None:
    for operator, accepted in {"<<": "1", "<=": "12", "=": "2", ">=": "23", ">>": "3", "": "123"}.items():
        relation = Relation("a", operator, "2" if operator else "")
        assert [version for version in "123" if relation.accepts(version)] == list(accepted)


def test_no_version_is_accepted_by_none() -> None:
    assert Relation("a").accepts("")
    assert not Relation("a", ">=", "0").accepts("")
