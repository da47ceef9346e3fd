"""Every fault point of the store x {an error, a kill}: nothing half-made is ever seen, and the next try
succeeds."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import driver
import pytest

from sandboxfile.store.gc import GRACE
from sandboxfile.store.store import Store
from sandboxfile.store.sweep import empty_trash, sweep, trash_entries

DRIVER = Path(driver.__file__)
BLOB = hashlib.sha256(driver.BLOB).hexdigest()


def run(home: Path, work: str, point: str = "", action: str = "none") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DRIVER, home, work, point, action], capture_output=True, text=True, check=False
    )


def check_invariants(home: Path) -> None:
    """What must hold whenever nobody is at work."""
    with Store.open(home) as store:
        assert (home / "VERSION").read_text() == "1\n"
        for path in (store.blobs.directory / "sha256").rglob("*"):
            if path.is_file():
                store.blobs.verify(f"{path.parent.name}{path.name}")
        layers = store.index.layers()
        assert store.index.layers_present(layers) == layers.keys()
        for snapshot in store.index.snapshots():
            assert store.index.layers_present(snapshot.layers) == set(snapshot.layers)
            assert (store.snapshots / f"{snapshot.slug}.json").exists()


def check_nothing_left(home: Path) -> None:
    """What must hold after gc has run, an hour later."""
    with Store.open(home, clock=lambda: time.time() + 2 * GRACE) as store:
        sweep(store)
        empty_trash(store)
        assert os.listdir(store.blobs.incoming) == []
        assert trash_entries(store) == ()
        slugs = {f"{snapshot.slug}.json" for snapshot in store.index.snapshots()}
        assert set(os.listdir(store.snapshots)) == slugs
        assert os.listdir(store.locks.directory / "uses") == []
    assert not [name for name in os.listdir(home) if name.startswith(("index.new", "."))]


POINTS = [
    ("write_blob", "store:directory"),
    ("write_blob", "atomic:written"),
    ("write_blob", "atomic:renamed"),
    ("write_blob", "blob:created"),
    ("write_blob", "blob:chunk"),
    ("write_blob", "blob:written"),
    ("write_blob", "blob:synced"),
    ("write_blob", "blob:renamed"),
    ("build", "build:committed"),
    ("build", "index:built"),
    ("build", "index:written"),
    ("build", "index:committed"),
    ("build", "publish:file"),
]


def outcome(done: subprocess.CompletedProcess[str], action: str) -> None:
    if action == "kill":
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        assert done.returncode == 1
        assert "OSError: [Errno 28]" in done.stderr


@pytest.mark.parametrize("action", ["raise", "kill"])
@pytest.mark.parametrize(("work", "point"), POINTS)
def test_a_fault_on_the_way_in_leaves_the_old_state_or_the_new(
    tmp_path: Path, work: str, point: str, action: str
) -> None:
    home = tmp_path / "home"
    outcome(run(home, work, point, action), action)
    check_invariants(home)
    again = run(home, work)
    assert again.returncode == 0, again.stderr
    check_invariants(home)
    with Store.open(home) as store:
        if work == "build":
            assert [each.slug for each in store.index.snapshots()] == [driver.the_snapshot(0).slug]
        else:
            assert store.blobs.has(BLOB)
    check_nothing_left(home)


@pytest.mark.parametrize("action", ["raise", "kill"])
@pytest.mark.parametrize(
    ("work", "point"),
    [
        ("remove", "remove:file"),
        ("remove", "index:written"),
        ("remove", "index:committed"),
        ("collect", "gc:forgotten"),
        ("collect", "gc:moved"),
        ("collect", "gc:deleted"),
    ],
)
def test_a_fault_on_the_way_out_is_finished_by_the_next_try(
    tmp_path: Path, work: str, point: str, action: str
) -> None:
    home = tmp_path / "home"
    for first in ("write_blob", "build"):
        assert run(home, first).returncode == 0
    if work == "collect":
        assert run(home, "remove").returncode == 0
    outcome(run(home, work, point, action), action)
    with Store.open(home) as store:
        layers = store.index.layers()
        assert store.index.layers_present(layers) == layers.keys()
    for each in ("remove", "collect"):
        again = run(home, each)
        assert again.returncode == 0, again.stderr
    check_invariants(home)
    check_nothing_left(home)
    with Store.open(home) as store:
        assert store.index.snapshots() == ()
        assert os.listdir(store.layers) == []
        assert not store.blobs.has(BLOB)
    assert run(home, "build").returncode == 0
    check_invariants(home)


@pytest.mark.parametrize("action", ["raise", "kill"])
@pytest.mark.parametrize("point", ["index:damaged", "index:built"])
def test_a_fault_while_the_index_is_made_anew_loses_nothing(tmp_path: Path, point: str, action: str) -> None:
    home = tmp_path / "home"
    assert run(home, "build").returncode == 0
    (home / "index.sqlite").write_bytes(b"\xff" * 9000)
    outcome(run(home, "damage", point, action), action)
    check_invariants(home)
    with Store.open(home) as store:
        assert [each.slug for each in store.index.snapshots()] == [driver.the_snapshot(0).slug]
    check_nothing_left(home)


def test_an_error_inside_a_write_leaves_no_half_blob_even_before_gc(tmp_path: Path) -> None:
    run(tmp_path / "home", "write_blob", "blob:synced", "raise")
    files = [path for path in (tmp_path / "home" / "blobs").rglob("*") if path.is_file()]
    assert files == []


def test_a_writer_killed_at_twenty_random_places_never_leaves_a_half_blob(tmp_path: Path) -> None:
    home = tmp_path / "home"
    seed = random.randrange(2**32)
    choice = random.Random(seed)
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, DRIVER, home, "write_blob", "blob:chunk", "none"], stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            for _ in range(choice.randrange(1, 14)):
                process.stdout.readline()
            process.kill()
        check_invariants(home)
    assert run(home, "write_blob").returncode == 0, f"seed {seed}"
    check_invariants(home)
    check_nothing_left(home)
    with Store.open(home) as store:
        assert store.blobs.has(BLOB)


def started(home: Path, work: str, number: int = 0, point: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, DRIVER, home, work, point, "none", str(number)], stdout=subprocess.PIPE
    )


def test_processes_that_write_one_blob_at_once_all_succeed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    processes = [started(home, "write_blob") for _ in range(4)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 4
    check_invariants(home)
    check_nothing_left(home)


def test_many_processes_may_publish_at_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    processes = [started(home, "build", number % 5) for number in range(12)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes if process.returncode] == []
    with Store.open(home) as store:
        found = {each.slug for each in store.index.snapshots()}
        assert found == {driver.the_snapshot(number).slug for number in range(5)}
    check_invariants(home)


def test_gc_beside_writers_and_publishers_breaks_neither(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Store.open(home).close()
    processes = [
        started(home, work) for work in ("collect", "write_blob", "collect", "write_blob", "collect")
    ]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 5
    check_invariants(home)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_publisher_does_not_hold_up_the_others(tmp_path: Path, victim: int) -> None:
    home = tmp_path / "home"
    outcome(run(home, "build", "index:written", "kill"), "kill")
    processes = [started(home, "build", number) for number in range(3)]
    processes[victim].kill()
    for process in processes:
        process.communicate()
    assert all(p.returncode == 0 for n, p in enumerate(processes) if n != victim)
    check_invariants(home)
