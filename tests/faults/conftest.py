"""A store in which one tiny environment is published, for whoever wants to harm a copy of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_driver import build, empty_store, make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A directory with a `home`, in which the first version of the `project` beside it is published, and that
    version's slug."""
    place = tmp_path_factory.mktemp("finished")
    make_project(place / "project", "first")
    slug = asyncio.run(build(place / "home", place / "project"))
    yield place, slug
    asyncio.run(empty_store(place / "home"))
