"""Scanning any small tree gives what a plain walk of it gives."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxfile.inputs.context import scan
from sandboxfile.spec.model import FileRequest

Tree = dict[str, object]

name = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=6
).filter(lambda text: text not in (".", "..", ".git", ".sandboxfileignore"))
file = st.tuples(st.binary(max_size=20), st.sampled_from([0o600, 0o644, 0o755, 0o711, 0o444]))
link = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=8)
trees = st.recursive(
    st.dictionaries(name, file | link, max_size=3),
    lambda inner: st.dictionaries(name, file | link | inner, max_size=4),
    max_leaves=8,
)

Expected = dict[str, tuple[object, ...]]


def make(tree: Tree, at: Path, to: str, expected: Expected) -> None:
    """Write a tree to disk, and what scanning it for `to` must give to `expected`."""
    for child, value in tree.items():
        path = f"{to}/{child}"
        if isinstance(value, dict):
            (at / child).mkdir()
            expected[path] = ("dir", 0o755, "", "")
            make(value, at / child, path, expected)
        elif isinstance(value, str):
            (at / child).symlink_to(value)
            expected[path] = ("symlink", 0, "", value)
        elif isinstance(value, tuple):
            data, mode = value
            (at / child).write_bytes(data)
            (at / child).chmod(mode)
            executable = 0o755 if mode & 0o111 else 0o644
            expected[path] = ("file", executable, hashlib.sha256(data).hexdigest(), "")


@settings(deadline=None, max_examples=150)
@given(trees)
def test_a_scan_is_the_tree(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as place:
        expected: Expected = {"/to": ("dir", 0o755, "", "")}
        (Path(place) / "tree").mkdir()
        make(tree, Path(place) / "tree", "/to", expected)
        (entries,) = scan(Path(place), [FileRequest("/to", "tree")]).entries
        found = {e.path: (e.type, e.mode, e.sha256, e.target) for e in entries}
        assert found == expected
        assert [e.path for e in entries] == sorted(expected)
        assert all(Path(e.origin).is_file() for e in entries if e.type == "file")
