"""Directories of package files under their own names, made for one command and removed after it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(parent: Path, files: Mapping[str, Path | bytes]) -> Iterator[Path]:
    """A directory in `parent` that holds each name: a hard link to (else a copy of) the path, or the bytes.

    The directory is world-readable, since sandboxes see it with other ids; it is meant to be mounted
    read-only, so that a link to a blob can never be written through.
    """
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="stage-", dir=parent))
    try:
        directory.chmod(0o755)
        for name, content in files.items():
            place = directory / name
            if isinstance(content, bytes):
                place.write_bytes(content)
                place.chmod(0o644)
                continue
            try:
                os.link(content, place)
            except OSError:
                # Another file system, or one without hard links.
                shutil.copyfile(content, place)
                place.chmod(0o644)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
