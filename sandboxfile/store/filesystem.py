"""Whether a file system can hold a store, tried on the file system itself when a store is made on it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from sandboxfile.errors import StoreError
from sandboxfile.store.atomic import unique

_LACKING = frozenset(
    {errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ENOTTY, errno.EMLINK, errno.ENOLCK}
)


def _modes(place: Path) -> bool:
    private = place / "private"
    private.mkdir(mode=0o700)
    return private.stat().st_mode & 0o777 == 0o700


def _case(place: Path) -> bool:
    (place / "name").touch()
    return not (place / "NAME").exists()


def _locks(place: Path) -> bool:
    with open(place / "lock", "w") as first, open(place / "lock") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _replacing(place: Path) -> bool:
    for name in ("old", "new"):
        (place / name).write_text(name)
    os.replace(place / "new", place / "old")
    return (place / "old").read_text() == "new"


def _hard_links(place: Path) -> bool:
    (place / "one").touch()
    os.link(place / "one", place / "two")
    return (place / "one").stat().st_nlink == 2


def _symlinks(place: Path) -> bool:
    (place / "link").symlink_to("nowhere")
    return os.readlink(place / "link") == "nowhere"


def _attributes(place: Path) -> bool:
    os.setxattr(place, "user.sandboxfile", b"y")
    return os.getxattr(place, "user.sandboxfile") == b"y"


def _pipes(place: Path) -> bool:
    os.mkfifo(place / "fifo")
    return True


def _overlays(place: Path) -> bool:
    """An overlay cannot be written through another one."""
    device = place.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            mount, _, kind = line.partition(" - ")
            if mount.split()[2] == number and kind.split()[0] == "overlay":
                return False
    return True


_TRIALS: dict[str, Callable[[Path], bool]] = {
    "modes": _modes,
    "locks": _locks,
    "replacing": _replacing,
    "case": _case,
    "hard links": _hard_links,
    "symbolic links": _symlinks,
    "attributes": _attributes,
    "pipes": _pipes,
    "overlays": _overlays,
}
_NAMES = {
    "modes": "files that only their owner may read (modes)",
    "locks": "locks between processes (flock)",
    "replacing": "renaming a file over another",
    "case": "names that differ only in upper and lower case",
    "hard links": "hard links",
    "symbolic links": "symbolic links",
    "attributes": "extended attributes of users (user.*), which overlays keep their notes in",
    "pipes": "named pipes",
    "overlays": "overlays on it, being one itself (as the root of a container is)",
}

FOR_STORE = ("modes", "locks", "replacing")
"""What the store itself needs."""
FOR_LAYERS = ("case", "hard links", "symbolic links", "attributes", "pipes", "overlays")
"""What layers need beside that, where the engine keeps them in the store."""


def lacking(directory: Path, wanted: Iterable[str]) -> tuple[str, ...]:
    """Which of the features the file system of a directory does not have, in words. OSError for any other
    reason why something cannot be made there."""
    found = []
    for feature in wanted:
        place = directory / f".trial.{unique()}"
        place.mkdir(mode=0o700)
        try:
            has_it = _TRIALS[feature](place)
        except OSError as error:
            if error.errno not in _LACKING:
                raise
            has_it = False
        finally:
            _remove(place)
        if not has_it:
            found.append(_NAMES[feature])
    return tuple(found)


def require(directory: Path, wanted: Iterable[str]) -> None:
    """Raise StoreError when the file system of a directory lacks one of the features."""
    missing = lacking(directory, wanted)
    if missing:
        raise StoreError(
            f"the file system of {directory} cannot hold a store: it lacks {'; '.join(missing)}",
            hint="set SANDBOXFILE_HOME to a directory on a local file system such as ext4, xfs or btrfs",
        )


def _remove(place: Path) -> None:
    for entry in list(os.scandir(place)):
        if entry.is_dir(follow_symlinks=False):
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
    place.rmdir()
