"""Nothing changed means nothing done: recognising a build by its inputs, before anything is parsed.

A finished build leaves a memo under the digest of what was read to plan it: the Sandboxfile's bytes, the
lock's, the parameters, the engine. The memo names the other inputs (context files, recipes, requirement
files) with the digest they had. When all of them still have it, and the snapshot is there, its slug is the
answer. Content is always hashed, by way of the store's stat cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxfile.build.project import LOCK_NAME, Project
from sandboxfile.build.result import BuildResult
from sandboxfile.core.layer import LAYER_TAG, SNAPSHOT_TAG

if TYPE_CHECKING:
    from sandboxfile.inputs.context import ContextTree
    from sandboxfile.store.store import Store

KIND = "memo"


def remember(store: Store, project: Project, context: ContextTree, slug: str, salt: str) -> None:
    """Leave a memo of a finished build."""
    from sandboxfile.inputs.context import tree_digest

    key = _key(project.file, project.lock_path, project.params, salt)
    if key is None:
        return
    files = [
        {each.name: getattr(request, each.name) for each in fields(request) if each.name != "span"}
        for request in project.sandboxfile.files
    ]
    documents = {str(path): _digest(path) for path in project.documents()}
    digests = [tree_digest(entries) for entries in context.entries]
    memo = {"slug": slug, "files": files, "trees": digests, "documents": documents}
    store.index.keep_document(KIND, key, memo)


def recall(store: Store, file: Path, params: Mapping[str, str], salt: str) -> BuildResult | None:
    """The result of the build that read just these inputs; None when there was none, or its snapshot is
    gone."""
    import time

    started = time.monotonic()
    key = _key(file, file.parent / LOCK_NAME, params, salt)
    memo: Any = store.index.document(KIND, key) if key else None
    if not isinstance(memo, dict):
        return None
    record = store.index.snapshot(memo["slug"])
    if record is None or len(store.index.layers_present(record.layers)) != len(set(record.layers)):
        return None
    if any(_digest(Path(path)) != digest for path, digest in memo["documents"].items()):
        return None
    if memo["files"] and _trees(store, file.parent, memo["files"]) != memo["trees"]:
        return None
    store.index.touch_snapshot(record.slug)
    return BuildResult(slug=record.slug, seconds=time.monotonic() - started)


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


def _key(file: Path, lock: Path, params: Mapping[str, str], salt: str) -> str | None:
    try:
        parts = [file.read_bytes(), lock.read_bytes()]
    except OSError:
        return None
    head = json.dumps([LAYER_TAG, SNAPSHOT_TAG, salt, str(file), sorted(params.items())])
    digest = hashlib.sha256()
    for part in (head.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _digest(path: Path) -> str | None:
    """The digest of a file, or of a directory's names and contents; None when it cannot be read."""
    try:
        if not path.is_dir():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        tree = {str(each.relative_to(path)): _digest(each) for each in path.rglob("*") if not each.is_dir()}
    except OSError:
        return None
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
