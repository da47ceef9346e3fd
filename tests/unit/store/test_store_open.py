from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey
from sandboxfile.errors import StoreError
from sandboxfile.store.store import Store


def test_a_new_store_is_private_and_says_its_version(home: Path) -> None:
    with Store.open(home / "deeper"):
        assert (home / "deeper").stat().st_mode & 0o777 == 0o700
        assert (home / "deeper" / "VERSION").read_text() == "1\n"


def test_opening_again_changes_nothing(home: Path) -> None:
    Store.open(home).close()
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    Store.open(home).close()
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_missing_directory_is_made_again(home: Path) -> None:
    Store.open(home).close()
    (home / "trash").rmdir()
    assert Store.open(home).trash.is_dir()


def test_a_store_of_a_newer_version_is_refused(home: Path) -> None:
    Store.open(home).close()
    (home / "VERSION").write_text("2\n")
    with pytest.raises(StoreError, match="newer version") as caught:
        Store.open(home)
    assert "upgrade" in str(caught.value.hint)


def test_an_unreadable_version_is_refused(home: Path) -> None:
    Store.open(home).close()
    (home / "VERSION").write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match="not readable"):
        Store.open(home)


def test_a_directory_of_other_things_is_refused_and_left_alone(home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "thesis.tex").touch()
    with pytest.raises(StoreError, match=r"no store of sandboxfile: it holds `thesis\.tex`"):
        Store.open(home)
    assert os.listdir(home) == ["thesis.tex"]
    assert home.stat().st_mode & 0o777 == 0o755


def test_a_file_in_its_place_is_refused(home: Path) -> None:
    home.touch()
    with pytest.raises(StoreError, match="not a directory"):
        Store.open(home)


def test_a_store_half_made_by_a_killed_process_is_completed(home: Path) -> None:
    (home / "layers").mkdir(parents=True)
    (home / ".VERSION.123-abc").touch()
    with Store.open(home) as store:
        assert store.index.snapshots() == ()


@pytest.mark.root
def test_a_store_of_another_user_is_refused(home: Path) -> None:
    Store.open(home).close()
    os.chown(home, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to another user"):
        Store.open(home)


def test_many_processes_may_make_one_store_at_once(home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sandboxfile.store.store import Store\n"
        "sys.stdin.read()\n"
        "with Store.open(Path(sys.argv[1])) as store: store.index.keep_document('kind', sys.argv[2], 1)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(home), str(n)], stdin=subprocess.PIPE)
        for n in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 6
    with Store.open(home) as store:
        assert store.index.documents("kind", map(str, range(6))) == {str(n): 1 for n in range(6)}
        assert store.notices == ()


def test_places_are_named_by_key(store: Store) -> None:
    key = LayerKey(Digest("sha256:" + "a" * 64))
    assert store.layer_dir(key) == store.home / "layers" / ("a" * 64)
    assert store.log_path(key) == store.home / "logs" / f"{'a' * 64}.log"
    assert store.index_dir(key) == store.home / "indexes" / ("a" * 64)


def test_opening_loads_nothing_expensive(home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sandboxfile.store.store import Store\n"
        "with Store.open(Path(sys.argv[1])) as store: store.index.snapshots()\n"
        "print(sorted({'asyncio', 'networkx', 'httpx', 'jinja2', 'rich', 'difflib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, home], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
