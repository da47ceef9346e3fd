"""From what the operating system says to what a user can act on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sandboxfile.errors import StoreError

FREE_SPACE = "free some space, for example with `sandboxfile cache gc`"


def store_error(error: OSError, doing: str) -> StoreError:
    """The error to raise when the system refused while `doing` something (`writing a package`)."""
    where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return full_disk(f"{doing}{where}")
    if error.errno == errno.EDQUOT:
        return StoreError(f"the disk quota is used up; it happened while {doing}{where}", hint=FREE_SPACE)
    if error.errno == errno.EROFS:
        return read_only_store(f"{doing}{where}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError(
            f"permission denied while {doing}{where}",
            hint="the store must belong to the user who runs sandboxfile; SANDBOXFILE_HOME names another one",
        )
    return StoreError(f"{error.strerror or error} while {doing}{where}")


def read_only_store(doing: str) -> StoreError:
    """The error to raise when something has to be written and nothing can be."""
    return StoreError(
        f"the store is read-only; it happened while {doing}",
        hint="set SANDBOXFILE_HOME to a directory that can be written to",
    )


def full_disk(doing: str, details: tuple[str, ...] = ()) -> StoreError:
    """The error to raise when there is no space left; `details` is what a program said of it."""
    return StoreError(f"the disk is full; it happened while {doing}", hint=FREE_SPACE, details=details)


@contextmanager
def reported(doing: str) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError that says what was being done."""
    try:
        yield
    except OSError as error:
        raise store_error(error, doing) from error
