"""The golden cases' option: `pytest tests/golden --update-golden` writes what is expected from what is."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # The option exists only when this directory was named on the command line.
    return bool(request.config.getoption("--update-golden", default=False))
