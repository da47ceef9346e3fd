"""An open store with a clock that the test sets."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_making
from store_making import Clock, CommitLayer, MakeSnapshot

from sandboxfile.store.store import Store


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(home, clock=clock) as opened:
        yield opened


@pytest.fixture
def commit_layer(store: Store) -> CommitLayer:
    return functools.partial(store_making.commit_layer, store)


@pytest.fixture
def make_snapshot(store: Store) -> MakeSnapshot:
    return functools.partial(store_making.make_snapshot, store)
