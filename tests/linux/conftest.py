"""Fixtures of the linux engine's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench

from sandboxfile.engines.linux.engine import LinuxEngine


@pytest.fixture
def bench(linux_base: Any) -> Bench:
    engine, stack = linux_base
    return Bench(engine, tuple(stack))


@pytest.fixture
def empty_engine(tmp_path: Path) -> LinuxEngine:
    """An engine on a store of its own, with nothing in it."""
    return LinuxEngine(tmp_path / "home")
