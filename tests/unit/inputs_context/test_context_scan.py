"""What `files` entries copy from the build context, and what they must not."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sandboxfile.core.layer import TreeEntry
from sandboxfile.errors import Source, Span, SpecError
from sandboxfile.inputs.context import scan, tree_digest
from sandboxfile.spec.model import FileRequest

SPAN = Span(Source("Sandboxfile", "files:\n"), 1, 1)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def one(directory: Path, to: str, source: str | None = None, **fields: object) -> tuple[TreeEntry, ...]:
    request = FileRequest(to, source, span=SPAN, **fields)  # type: ignore[arg-type]
    (entries,) = scan(directory, [request]).entries
    return entries


def refused(
    directory: Path, to: str, source: str | None = None, **fields: object
) -> tuple[str, str, str | None]:
    with pytest.raises(SpecError) as caught:
        one(directory, to, source, **fields)
    (issue,) = caught.value.issues
    assert issue.span == SPAN
    assert issue.path == "files[0]"
    assert issue.message.isprintable()
    return issue.code, issue.message, issue.hint


def paths(entries: tuple[TreeEntry, ...]) -> list[str]:
    return [entry.path for entry in entries]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "src/deep").mkdir(parents=True)
    (root / "app.py").write_text("app")
    (root / "src/a.py").write_text("a")
    (root / "src/b.txt").write_text("b")
    (root / "src/deep/c.py").write_text("c")
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o744)
    return root


def test_a_file_goes_to_the_named_path(context: Path) -> None:
    (entry,) = one(context, "/app/main.py", "app.py")
    assert entry == TreeEntry("/app/main.py", "file", 0o644, "0:0", sha("app"))
    assert entry.size == 3
    assert Path(entry.origin).read_text() == "app"


def test_a_file_goes_into_a_path_that_ends_with_a_slash(context: Path) -> None:
    assert paths(one(context, "/app/", "src/a.py")) == ["/app/a.py"]
    assert paths(one(context, "/", "src/a.py")) == ["/a.py"]


def test_a_directory_s_content_goes_to_the_path_which_becomes_a_directory(context: Path) -> None:
    entries = one(context, "/opt/src", "src")
    assert paths(entries) == [
        "/opt/src",
        "/opt/src/a.py",
        "/opt/src/b.txt",
        "/opt/src/deep",
        "/opt/src/deep/c.py",
    ]
    assert [e.type for e in entries] == ["dir", "file", "file", "dir", "file"]
    assert entries[0].mode == 0o755
    assert one(context, "/opt/src/", "./src/") == entries


def test_the_root_directory_itself_is_left_as_it_is(context: Path) -> None:
    assert paths(one(context, "/", "src")) == ["/a.py", "/b.txt", "/deep", "/deep/c.py"]


def test_the_whole_context_can_be_copied_without_git(context: Path) -> None:
    (context / ".git").mkdir()
    (context / ".git/HEAD").write_text("ref")
    (context / "src/.git").write_text("gitdir: elsewhere")
    (context / "sandboxfile.lock").write_text("lock")
    found = paths(one(context, "/all", "."))
    assert "/all/sandboxfile.lock" in found
    assert not [path for path in found if ".git" in path]
    assert refused(context, "/x", ".git/HEAD")[0] == "ignored-file"


def test_modes_keep_only_whether_a_file_can_be_executed(context: Path) -> None:
    (context / "app.py").chmod(0o600)
    assert one(context, "/a", "app.py")[0].mode == 0o644
    assert one(context, "/a", "tool")[0].mode == 0o755


def test_a_given_mode_is_the_files_and_directories_can_be_entered_where_read(context: Path) -> None:
    modes = {entry.path: entry.mode for entry in one(context, "/s", "src", mode=0o640)}
    assert modes["/s/a.py"] == 0o640
    assert modes["/s"] == modes["/s/deep"] == 0o750


@pytest.mark.parametrize(
    ("owner", "result"),
    [
        (None, "0:0"),
        ("app", "app:app"),
        ("1000", "1000:1000"),
        ("1000:50", "1000:50"),
        ("app:staff", "app:staff"),
        ("007:app", "7:app"),
    ],
)
def test_owners_are_user_and_group(context: Path, owner: str | None, result: str) -> None:
    assert one(context, "/a", "app.py", owner=owner)[0].owner == result


@pytest.mark.parametrize("owner", ["", ":", "app:", "a b", "a:b:c", "../x", "-1"])
def test_what_is_no_owner_is_refused(context: Path, owner: str) -> None:
    assert refused(context, "/a", "app.py", owner=owner)[0] == "bad-owner"


def test_content_comes_with_the_tree(tmp_path: Path) -> None:
    tree = scan(tmp_path, [FileRequest("/etc/motd", content="grüß\n", span=SPAN)])
    ((entry,),) = tree.entries
    assert entry == TreeEntry("/etc/motd", "file", 0o644, "0:0", sha("grüß\n"))
    assert entry.origin == ""
    assert entry.size == len(tree.inline[entry.sha256])
    assert tree.inline[entry.sha256] == "grüß\n".encode()
    assert refused(tmp_path, "/etc/", content="x")[0] == "bad-destination"


def test_wildcards_go_into_the_path(context: Path) -> None:
    assert paths(one(context, "/x", "src/*.py")) == ["/x", "/x/a.py"]
    assert paths(one(context, "/x/", "src/[ab].*")) == ["/x", "/x/a.py", "/x/b.txt"]
    assert paths(one(context, "/x", "src/d*")) == ["/x", "/x/deep", "/x/deep/c.py"]
    assert paths(one(context, "/x", "**/*.py")) == ["/x", "/x/a.py", "/x/app.py", "/x/c.py"]
    assert paths(one(context, "/x", "src/**/c.py")) == ["/x", "/x/c.py"]
    (context / "src/.hidden.py").write_text("h")
    assert "/x/.hidden.py" in paths(one(context, "/x", "src/*.py"))


def test_a_name_that_looks_like_a_wildcard_is_the_file_of_that_name(context: Path) -> None:
    (context / "a[1].txt").write_text("literal")
    assert paths(one(context, "/x", "a[1].txt")) == ["/x"]


def test_two_files_at_one_place_are_refused(context: Path) -> None:
    (context / "src/deep/a.py").write_text("other")
    code, message, _ = refused(context, "/x", "**/a.py")
    assert code == "same-destination"
    assert "src/a.py and src/deep/a.py" in message


def test_a_wildcard_that_matches_nothing_is_refused(context: Path) -> None:
    assert refused(context, "/x", "src/*.rs")[0] == "missing-file"


def test_a_missing_file_is_refused_with_near_misses(context: Path) -> None:
    code, message, hint = refused(context, "/x", "ap.py")
    assert (code, hint) == ("missing-file", "did you mean app.py?")
    assert "ap.py" in message
    assert refused(context, "/x", "src/deep/d.py")[2] == "did you mean src/deep/c.py?"
    assert refused(context, "/x", "zzz/yyy")[2] is None
    assert refused(context, "/x", "app.py/below")[0] == "missing-file"


@pytest.mark.parametrize("source", ["/etc/passwd", "../secret", "src/../../secret", "a\0b", "\ud800"])
def test_paths_out_of_the_context_are_refused(context: Path, source: str) -> None:
    (context.parent / "secret").write_text("s")
    assert refused(context, "/x", source)[0] == "path-outside-context"


def test_a_source_that_leads_out_through_a_symlink_is_refused(context: Path) -> None:
    (context.parent / "outside").mkdir()
    (context.parent / "outside/secret").write_text("s")
    (context / "out").symlink_to("../outside")
    (context / "file").symlink_to("../outside/secret")
    (context / "nowhere").symlink_to("../outside/missing")
    for source in ("out", "out/secret", "file", "nowhere"):
        assert refused(context, "/x", source)[0] == "path-outside-context"


def test_a_sibling_whose_name_starts_like_the_context_is_outside(context: Path) -> None:
    Path(f"{context}-2").mkdir()
    Path(f"{context}-2/f").write_text("s")
    (context / "link").symlink_to(f"../{context.name}-2/f")
    assert refused(context, "/x", "link")[0] == "path-outside-context"


def test_symlinks_in_a_tree_are_copied_as_they_are(context: Path) -> None:
    (context / "src/up").symlink_to("../app.py")
    (context / "src/out").symlink_to("/etc/passwd")
    (context / "src/dangling").symlink_to("nowhere")
    (context / "src/loop").symlink_to(".")
    links = {e.path: e.target for e in one(context, "/s", "src") if e.type == "symlink"}
    assert links == {"/s/up": "../app.py", "/s/out": "/etc/passwd", "/s/dangling": "nowhere", "/s/loop": "."}
    assert all(e.mode == 0 and not e.sha256 for e in one(context, "/s", "src") if e.type == "symlink")


def test_a_source_that_is_a_symlink_inside_the_context_is_followed(context: Path) -> None:
    (context / "link").symlink_to("src")
    (context / "main").symlink_to("app.py")
    assert one(context, "/s", "link") == one(context, "/s", "src")
    assert paths(one(context, "/s/", "main")) == ["/s/main"]
    assert one(context, "/s/", "main")[0].sha256 == sha("app")


def test_a_context_behind_a_symlink_is_the_same_context(context: Path) -> None:
    (context.parent / "alias").symlink_to("context")
    assert one(context.parent / "alias", "/s", "src") == one(context, "/s", "src")


def test_what_is_no_file_is_refused_by_name(context: Path) -> None:
    os.mkfifo(context / "src/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(context / "src/sock"))
        with pytest.raises(SpecError) as caught:
            one(context, "/s", "src")
    assert [issue.code for issue in caught.value.issues] == ["special-file", "special-file"]
    assert [issue.message for issue in caught.value.issues] == [
        "src/pipe is a named pipe, which cannot be copied",
        "src/sock is a socket, which cannot be copied",
    ]
    assert "named pipe" in refused(context, "/s", "src/pipe")[1]


@pytest.mark.root
def test_a_device_is_refused(context: Path) -> None:
    try:
        os.mknod(context / "src/null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices cannot be made here")
    assert "a device" in refused(context, "/s", "src")[1]


@pytest.mark.root
def test_what_cannot_be_read_is_refused_by_name() -> None:
    # Everything lazy is imported while the interpreter's own files can still be read.
    program = (
        "import sys, os, pathlib, difflib\n"
        "from sandboxfile.errors import SpecError\n"
        "from sandboxfile.inputs.context import scan\n"
        "from sandboxfile.spec.model import FileRequest\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: scan(pathlib.Path(sys.argv[1]), [FileRequest('/s', 'src')])\n"
        "except SpecError as error: print(*[i.message for i in error.issues], sep='\\n')\n"
    )
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        (Path(place) / "src/deep").mkdir(parents=True)
        (Path(place) / "src/deep").chmod(0)
        (Path(place) / "src/a.py").touch(0)
        done = subprocess.run(
            [sys.executable, "-c", program, place], capture_output=True, text=True, check=True
        )
    assert done.stdout.splitlines() == [
        "src/a.py cannot be read: Permission denied",
        "src/deep cannot be read: Permission denied",
    ]


def test_unicode_names_are_kept_and_others_refused(context: Path) -> None:
    (context / "src/ünï 🎈\n.txt").write_text("u")
    (context / "src/u\u0308.txt").write_text("decomposed")
    found = paths(one(context, "/s", "src"))
    assert "/s/ünï 🎈\n.txt" in found
    assert "/s/u\u0308.txt" in found
    Path(os.fsdecode(bytes(context / "src") + b"/\xff\x1b[2J")).write_text("x")
    code, message, _ = refused(context, "/s", "src")
    assert code == "name-not-utf8"
    assert "src/\\xff\\x1b[2J" in message
    (context / ".sandboxfileignore").write_text("*2J\n")
    assert paths(one(context, "/s", "src")) == found


def test_entries_are_in_the_order_of_their_code_points(context: Path) -> None:
    for name in ("Z", "a", "é", "10", "9", "_"):
        (context / "src" / name).write_text(name)
    found = paths(one(context, "/s", "src"))
    assert found == sorted(found)


@pytest.mark.parametrize("to", ["relative", "", "/a/../b", "/..", "/a\0b", "/\ud800"])
def test_bad_destinations_are_refused(context: Path, to: str) -> None:
    assert refused(context, to, "app.py")[0] == "bad-destination"


def test_destinations_are_brought_into_one_form(context: Path) -> None:
    assert paths(one(context, "//a/./b", "app.py")) == ["/a/b"]


def test_every_entry_s_problems_are_reported_at_once(context: Path) -> None:
    requests = [
        FileRequest("/a", "missing1"),
        FileRequest("relative", "app.py"),
        FileRequest("/fine", "app.py"),
        FileRequest("/b", "../x"),
    ]
    with pytest.raises(SpecError) as caught:
        scan(context, requests)
    assert [(issue.code, issue.path) for issue in caught.value.issues] == [
        ("missing-file", "files[0]"),
        ("bad-destination", "files[1]"),
        ("path-outside-context", "files[3]"),
    ]


def test_each_entry_has_a_tuple_and_a_later_one_comes_later(context: Path) -> None:
    first, second = scan(context, [FileRequest("/x", "app.py"), FileRequest("/x", "tool")]).entries
    assert paths(first) == paths(second) == ["/x"]
    assert first != second


def test_an_entry_with_its_own_root_reads_there(context: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "r.conf").write_text("r")
    (recipe / ".sandboxfileignore").write_text("secret\n")
    (recipe / "secret").write_text("s")
    assert one(context, "/r.conf", "r.conf", root=str(recipe))[0].sha256 == sha("r")
    assert paths(one(context, "/r", ".", root=str(recipe))) == ["/r", "/r/.sandboxfileignore", "/r/r.conf"]
    assert refused(context, "/x", "../context/app.py", root=str(recipe))[0] == "path-outside-context"


def ignoring(context: Path, *patterns: str) -> list[str]:
    (context / ".sandboxfileignore").write_text("\n".join((".sandboxfileignore", *patterns)) + "\n")
    return paths(one(context, "/s", "."))


def test_the_ignore_file_has_gitignore_s_meaning(context: Path) -> None:
    everything = ignoring(context)
    assert ignoring(context, "# comment", "", "*.py") == [p for p in everything if not p.endswith(".py")]
    assert ignoring(context, "/*.py") == [p for p in everything if p != "/s/app.py"]
    assert ignoring(context, "deep/") == [p for p in everything if "deep" not in p]
    assert ignoring(context, "*.py", "!a.py") == [p for p in everything if not p.endswith(("app.py", "c.py"))]
    # As in git: what lies in an ignored directory cannot be taken back.
    assert ignoring(context, "src/", "!src/a.py") == ["/s", "/s/app.py", "/s/tool"]


def test_an_ignored_file_cannot_be_named(context: Path) -> None:
    (context / ".sandboxfileignore").write_text("*.py\nsrc/deep/\n")
    code, message, hint = refused(context, "/x", "app.py")
    assert code == "ignored-file"
    assert ".sandboxfileignore" in message
    assert "!/app.py" in (hint or "")
    assert refused(context, "/x", "src/deep")[0] == "ignored-file"
    (context / "link").symlink_to("app.py")
    assert refused(context, "/x", "link")[0] == "ignored-file"
    assert refused(context, "/x", "*.py")[0] == "missing-file"


def test_an_ignore_file_that_is_not_text_is_refused(context: Path) -> None:
    (context / ".sandboxfileignore").write_bytes(b"\xff\xfe")
    assert refused(context, "/x", "app.py")[0] == "bad-ignore-file"


def test_a_very_deep_tree_is_no_problem(tmp_path: Path) -> None:
    deep = tmp_path / "t" / "/".join("d" * 1200)
    try:
        subprocess.run(["mkdir", "-p", deep], check=True)
        (deep / "f").write_text("x")
        assert paths(one(tmp_path, "/t", "t"))[-1] == "/t" + "/d" * 1200 + "/f"
    finally:
        # Too deep for what pytest clears its directories with.
        subprocess.run(["rm", "-rf", tmp_path / "t"], check=True)


def test_a_tree_s_digest_is_that_of_its_content(context: Path, tmp_path: Path) -> None:
    before = one(context, "/s", "src")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(context), str(copy)], check=True)
    assert tree_digest(one(copy, "/s", "src")) == tree_digest(before)
    (copy / "src/a.py").write_text("changed")
    assert tree_digest(one(copy, "/s", "src")) != tree_digest(before)
    (copy / "src/a.py").write_text("a")
    assert tree_digest(one(copy, "/s", "src")) == tree_digest(before)
    (copy / "src/a.py").chmod(0o755)
    assert tree_digest(one(copy, "/s", "src")) != tree_digest(before)
