"""Manifests: what layers hold, compared and stacked."""

from __future__ import annotations

from sandboxfile.core.manifest import Change, Entry, differences, entry_of, stacked


def file(path: str, text: str = "a", **about: int) -> Entry:
    return Entry(path, "file", about.get("mode", 0o644), mtime=about.get("mtime", 0), size=1, sha256=text)


def test_a_row_is_read_by_its_type() -> None:
    rows: list[list[object]] = [
        ["a", "f", 420, 1, 2, 9, [["user.x", "00"]], 3, "ff"],
        ["d", "d", 493, 0, 0, 9, [], True],
        ["l", "l", 0, 0, 0, 9, [], "a"],
        ["h", "h", 420, 1, 2, 9, [], "a"],
        ["p", "p", 420, 0, 0, 9, []],
        ["c", "c259", 420, 0, 0, 9, []],
        ["w", "w"],
    ]
    assert [entry_of(row) for row in rows] == [
        Entry("a", "file", 420, 1, 2, 9, (("user.x", "00"),), size=3, sha256="ff"),
        Entry("d", "dir", 493, mtime=9, opaque=True),
        Entry("l", "symlink", mtime=9, target="a"),
        Entry("h", "hardlink", 420, 1, 2, 9, target="a"),
        Entry("p", "fifo", 420, mtime=9),
        Entry("c", "device", 420, mtime=9, target="c259"),
        Entry("w", "whiteout"),
    ]


def test_equal_manifests_do_not_differ() -> None:
    assert differences([file("a"), file("b")], [file("b"), file("a")]) == ()


def test_every_kind_of_difference_is_named() -> None:
    first = [
        file("content"), file("gone"), file("kind"), file("mode"), file("time"),
        Entry("owner", "dir"), Entry("link", "symlink", target="a"), Entry("attributes", "dir"),
    ]  # fmt: skip
    second = [
        file("content", "b"), file("new"), Entry("kind", "dir"), file("mode", mode=0o755),
        file("time", mtime=5), Entry("owner", "dir", uid=7), Entry("link", "symlink", target="b"),
        Entry("attributes", "dir", xattrs=(("user.x", "00"),)),
    ]  # fmt: skip
    found = {each.path: (each.changes, each.detail) for each in differences(first, second)}
    assert found == {
        "attributes": ((Change.ATTRIBUTES,), "attributes none -> user.x"),
        "content": ((Change.CONTENT,), "content other bytes, 1 bytes"),
        "gone": ((Change.REMOVED,), ""),
        "kind": ((Change.KIND,), "kind file -> dir"),
        "link": ((Change.TARGET,), "target a -> b"),
        "mode": ((Change.MODE,), "mode 644 -> 755"),
        "new": ((Change.ADDED,), ""),
        "owner": ((Change.OWNER,), "owner 0:0 -> 7:0"),
        "time": ((Change.TIME,), "time 0 -> 5"),
    }


def test_a_time_alone_can_be_left_out() -> None:
    assert differences([file("a")], [file("a", mtime=3)], times=False) == ()


def test_upper_layers_replace_and_remove() -> None:
    below = [Entry("d", "dir"), file("d/a"), file("d/b"), file("single"), file("single-not")]
    above = [Entry("d", "dir", 0o700), Entry("d/a", "whiteout"), Entry("single", "whiteout"), file("new")]
    tree = stacked([below, above])
    assert {path: entry.mode for path, entry in tree.items()} == {
        "d": 0o700,
        "d/b": 0o644,
        "single-not": 0o644,
        "new": 0o644,
    }


def test_an_opaque_directory_hides_what_is_below() -> None:
    below = [Entry("d", "dir"), file("d/old"), Entry("d/sub", "dir"), file("d/sub/old")]
    above = [Entry("d", "dir", opaque=True), file("d/new")]
    assert sorted(stacked([below, above])) == ["d", "d/new"]


def test_a_file_in_place_of_a_directory_hides_it() -> None:
    assert sorted(stacked([[Entry("d", "dir"), file("d/old")], [file("d")]])) == ["d"]


def test_a_hard_link_is_a_file_of_its_own_in_a_tree() -> None:
    tree = stacked([[file("a", "x"), Entry("b", "hardlink", target="a")]])
    assert (tree["b"].kind, tree["b"].sha256, tree["b"].path) == ("file", "x", "b")
