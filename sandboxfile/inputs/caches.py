"""Packages that are nearer than their origins: caches by sha256, on this machine or on another.

A cache is a directory or a base URL with files at `sha256/<2>/<62>`, the layout of the store's own `blobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxfile.inputs.settings import Settings


def near_urls(settings: Settings, sha256: str) -> Sequence[str]:
    """Where a file may be before any of its own origins is asked: vendored, then in the caches."""
    urls = [cache_url(cache, sha256) for cache in settings.caches]
    if settings.vendored is not None:
        from sandboxfile.inputs.vendored import open_vendored

        found = open_vendored(settings.vendored).url(sha256)
        return [found, *urls] if found else urls
    return urls


def cache_url(cache: str, sha256: str) -> str:
    """The place of a file in a cache."""
    base = cache if "://" in cache else Path(cache).absolute().as_uri()
    return f"{base.rstrip('/')}/sha256/{sha256[:2]}/{sha256[2:]}"
