"""Which ids of the host sandboxes get."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sandboxfile.engines.linux.idmap import IdMap, free_range, load_ids, subordinate_lines
from sandboxfile.errors import EngineError

RANGE = 65536


def test_root_never_takes_a_range_that_somebody_has() -> None:
    taken = [("alice", 100000, RANGE), ("bob", 0x30000 - 10, RANGE), ("carol", 0x50000, 1)]
    start = free_range(taken)
    assert all(start + RANGE <= low or low + count <= start for _, low, count in taken)
    assert start % RANGE == 0


def test_root_does_not_take_the_first_users_usual_range() -> None:
    assert free_range([]) >= 100000 + RANGE


def test_broken_lines_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("alice:100000:65536\nbroken\n\n1000:x:3\n1001:200000:70000\n")
    assert subordinate_lines(str(file)) == [("alice", 100000, 65536), ("1001", 200000, 70000)]
    assert subordinate_lines(str(tmp_path / "missing")) == []


def test_a_store_keeps_its_mapping(tmp_path: Path) -> None:
    mode = "root" if os.geteuid() == 0 else "user"
    if mode == "user":
        pytest.skip("an ordinary user's ranges depend on the machine")
    first = load_ids(tmp_path)
    assert load_ids(tmp_path) == first
    assert json.loads((tmp_path / "idmap.json").read_text())["uid"] == first.uid


def test_a_store_of_another_kind_of_user_is_refused(tmp_path: Path) -> None:
    other = "user" if os.geteuid() == 0 else "root"
    (tmp_path / "idmap.json").write_text(json.dumps({"mode": other, "uid": 100000, "gid": 100000}))
    with pytest.raises(EngineError, match="was made by") as caught:
        load_ids(tmp_path)
    assert "SANDBOXFILE_HOME" in str(caught.value.hint)


def test_a_damaged_record_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "idmap.json").write_text("{")
    with pytest.raises(EngineError, match="damaged"):
        load_ids(tmp_path)


def test_the_helper_of_an_ordinary_user_sees_the_range_after_its_own_user() -> None:
    assert IdMap("user", 231072, 231072).guest_uid == 1
    assert IdMap("root", 196608, 196608).guest_gid == 196608
