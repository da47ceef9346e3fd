"""What the recipe's checks lint, run and type-check: one function with its test."""


def doubled(number: int) -> int:
    return number * 2


def test_doubled() -> None:
    assert doubled(21) == 42
