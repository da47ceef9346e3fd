"""What has reached the disk, and what a loss of power may have taken.

A layer's directory and record are put on disk when it is committed, its content is not: that would make
each layer wait for the disk. Until one sync before publishing, a layer belongs to the boot it was made in;
in any later boot it is not believed, and made again.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from sandboxfile.store.failure import reported

BOOT_ID = "/proc/sys/kernel/random/boot_id"


@cache
def this_boot() -> str | None:
    """What tells this run of the machine from every other; None where the kernel does not say."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None


def is_doubtful(boot: str | None) -> bool:
    """Whether the content of a layer that belongs to a boot may have been lost since."""
    return boot is not None and boot != this_boot()


def sync_filesystem(path: Path) -> None:
    """Wait until everything written so far to the file system of `path` is on its disk. syncfs(2). StoreError
    when the disk refuses something."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with reported("writing the store to its disk"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), os.fspath(path))
        finally:
            os.close(descriptor)
