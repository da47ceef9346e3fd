"""One world for each engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sdk_world import World


@pytest.fixture
def memory(tmp_path: Path) -> World:
    """The memory engine alone."""
    return World("memory", tmp_path / "home")


@pytest.fixture(params=["memory", pytest.param("linux", marks=(pytest.mark.host, pytest.mark.network))])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Each engine in turn."""
    if request.param == "memory":
        yield World("memory", tmp_path / "home")
        return
    request.getfixturevalue("base_project")
    found = World("linux", request.getfixturevalue("shared_home"))
    yield found
    asyncio.run(found.clean())
