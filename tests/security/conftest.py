"""Fixtures of the escape suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from escape_arena import Arena, compile_probes, facts


@pytest.fixture(scope="session")
def arena(shared_home: Path, base_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """An engine, the probes, and things of the tests' own to aim at."""
    from sandboxfile.engines.linux.engine import LinuxEngine
    from sandboxfile.store.store import Store

    with Store.open(shared_home) as store:
        base = store.index.find("base").layers
    directory = tmp_path_factory.mktemp("arena")
    with facts(directory) as found:
        arena = Arena(LinuxEngine(shared_home), base, compile_probes(directory), found)
        try:
            found["helper"] = str(arena.start_helper())
            yield arena
        finally:
            arena.close()
