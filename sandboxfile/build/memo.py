"""Nothing changed means nothing done: recognising a build by its inputs, before anything is parsed.

A finished build leaves a memo: the bytes of the Sandboxfile and the lock, the parameters and the engine, the
digests of the other documents (recipes, requirement files), and of the build context both the digest of each
tree and a fingerprint of its files. When all of that is as it was and the snapshot is there, its slug is the
answer. The context is compared by fingerprint first; where that differs, or proves nothing, its content is
hashed.

A memo is a file of its own, so that neither SQLite nor any cryptography is loaded to read it; it is written
after the snapshot was published and checked, and is believed only while the snapshot's file and its layers
are there.
"""

from __future__ import annotations

import json
import os
import time
from binascii import crc32
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxfile.build.project import LOCK_NAME, Project
from sandboxfile.build.result import BuildResult
from sandboxfile.inputs.fingerprint import Fingerprint, fingerprint

if TYPE_CHECKING:
    from sandboxfile.inputs.context import ContextTree
    from sandboxfile.store.store import Store

FORMAT = 3
TOUCH_SECONDS = 3600.0
"""A memo older than this is renewed when it is used, and the use of its snapshot noted."""


def context_fingerprint(project: Project) -> tuple[Fingerprint, int]:
    """What the kernel says of a project's context now, and when that was (nanoseconds since the epoch)."""
    now = time.time_ns()
    return fingerprint(str(project.directory), _sources(_files(project))), now


def remember(
    store: Store,
    project: Project,
    context: ContextTree,
    slug: str,
    salt: str,
    before: tuple[Fingerprint, int],
) -> None:
    """Leave a memo of a finished build. `before` is what `context_fingerprint` said before the context was
    hashed. What cannot be written is left out: the next build looks again."""
    from sandboxfile.inputs.context import tree_digest

    text = _text(project.file, project.lock_path)
    record = store.index.snapshot(slug)
    if text is None or record is None or store.read_only:
        return
    key = _key(project.file, project.params, salt)
    header = {
        "format": FORMAT,
        "key": key,
        "text": text,
        "slug": slug,
        "layers": list(record.layers),
        "files": _files(project),
        "trees": [tree_digest(entries) for entries in context.entries],
        "documents": {str(path): _digest(path) for path in project.documents()},
    }
    after, _ = context_fingerprint(project)
    seen, when = before
    settled = seen.is_settled(when) and seen.content == after.content
    _write(store, key, header, after.content if settled else None)


def recall(store: Store, file: Path, params: Mapping[str, str], salt: str) -> BuildResult | None:
    """The result of the build that read just these inputs; None when there was none, or its snapshot is
    gone."""
    started = time.monotonic()
    key = _key(file, params, salt)
    path = _path(store, key)
    header, known = _read(path)
    if header is None or header.get("key") != key or header["text"] != _text(file, file.parent / LOCK_NAME):
        return None
    if not _is_there(store, header["slug"], header["layers"]):
        return None
    if any(_digest(Path(name)) != digest for name, digest in header["documents"].items()):
        return None
    if header["files"] and not _same_context(store, file.parent, key, header, known):
        return None
    if time.time() - os.stat(path).st_mtime > TOUCH_SECONDS and not store.read_only:
        store.index.touch_snapshot(header["slug"])
        os.utime(path)
    return BuildResult(slug=header["slug"], seconds=time.monotonic() - started)


def _is_there(store: Store, slug: str, layers: list[str]) -> bool:
    """Whether a snapshot is published and complete."""
    places = [f"{store.layers}/{key.partition(':')[2]}/layer.json" for key in layers]
    return all(map(os.path.exists, (f"{store.snapshots}/{slug}.json", *places)))


def _same_context(
    store: Store, directory: Path, key: str, header: dict[str, Any], known: bytes | None
) -> bool:
    """Whether the files of the context are as they were; by their content where the kernel cannot say."""
    now = time.time_ns()
    found = fingerprint(str(directory), _sources(header["files"]))
    if known is not None and found.content == known:
        return True
    if _trees(store, directory, header["files"]) != header["trees"]:
        return False
    again = fingerprint(str(directory), _sources(header["files"]))
    if found.is_settled(now) and found.content == again.content:
        _write(store, key, header, found.content)
    store.index.flush()
    return True


def _trees(store: Store, directory: Path, files: list[dict[str, Any]]) -> list[str] | None:
    from sandboxfile.errors import SpecError
    from sandboxfile.inputs.context import scan, tree_digest
    from sandboxfile.spec.model import FileRequest

    try:
        context = scan(directory, [FileRequest(**each) for each in files], cache=store.index.stat_cache())
    except SpecError:
        # What is wrong is said by the build that reads everything.
        return None
    return [tree_digest(entries) for entries in context.entries]


def _files(project: Project) -> list[dict[str, Any]]:
    from dataclasses import fields

    return [
        {each.name: getattr(request, each.name) for each in fields(request) if each.name != "span"}
        for request in project.sandboxfile.files
    ]


def _sources(files: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["root"], each["source"] or "") for each in files if each["content"] is None]


def _key(file: Path, params: Mapping[str, str], salt: str) -> str:
    return json.dumps([salt, str(file), sorted(params.items())])


def _path(store: Store, key: str) -> Path:
    # Two projects of one name take turns: the key in the memo says whose it is.
    return store.memos / f"{crc32(key.encode('utf-8', 'surrogateescape')):08x}-{len(key)}"


def _text(*paths: Path) -> list[str] | None:
    """The bytes of files, each as the text of as many characters."""
    try:
        return [path.read_bytes().decode("latin-1") for path in paths]
    except OSError:
        return None


def _read(path: Path) -> tuple[dict[str, Any] | None, bytes | None]:
    """A memo's header and the fingerprint of its context, None for what it lacks."""
    try:
        head, _, rest = path.read_bytes().partition(b"\n")
        header = json.loads(head)
    except (OSError, ValueError):
        return None, None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None, None
    return header, rest if header["settled"] else None


def _write(store: Store, key: str, header: Mapping[str, Any], content: bytes | None) -> None:
    from sandboxfile.store.atomic import write_atomically

    text = json.dumps({**header, "settled": content is not None})
    try:
        write_atomically(_path(store, key), text.encode() + b"\n" + (content or b""), durable=False)
    except OSError:
        return


def _digest(path: Path) -> str | None:
    """The digest of a file, or of a directory's names and contents; None when it cannot be read."""
    from hashlib import sha256

    try:
        if not path.is_dir():
            return sha256(path.read_bytes()).hexdigest()
        tree = {str(each.relative_to(path)): _digest(each) for each in path.rglob("*") if not each.is_dir()}
    except OSError:
        return None
    return sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
