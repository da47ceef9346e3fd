"""Disks of a certain size: ext4 file systems in sparse files, for volumes of root.

The file is as large as the volume's capacity, so that the kernel itself refuses what goes beyond it; what the
file system needs for itself is taken from that. Mounting one takes about 35 ms, so it is done by workers.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

from sandboxfile.engines.linux import syscalls as sys_

SMALLEST = 8 << 20
"""Bytes below which an image is mostly made of its own tables."""

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_READ_ONLY = 1
_AUTOCLEAR = 4
_ATTEMPTS = 32
_PATIENCE = 5.0
_MAGIC = 0xEF53
_CLEAN = 1
_NEEDS_RECOVERY = 4


def make_image(path: Path, capacity: int) -> None:
    """Make the file of an empty disk. OSError with what mkfs said when it fails."""
    with open(path, "xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(capacity)
    options = "lazy_itable_init=1,nodiscard,root_owner=0:0"
    argv = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", options, str(path)]
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise OSError(errno.EIO, said[-1] if said else f"mkfs.ext4 ended with {done.returncode}", str(path))


def is_clean(path: Path) -> bool:
    """Whether the file system in an image was unmounted properly, so that it can be read as it is."""
    with open(path, "rb") as file:
        file.seek(1024)
        block = file.read(1024)
    magic, state = struct.unpack_from("<HH", block, 56)
    (incompatible,) = struct.unpack_from("<I", block, 96)
    return magic == _MAGIC and bool(state & _CLEAN) and not incompatible & _NEEDS_RECOVERY


def wait_unused(path: str) -> None:
    """Wait until no loop device has the file any more: two writers would destroy it. OSError after 5 s."""
    deadline = time.monotonic() + _PATIENCE
    while _has_loop(path):
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "the image is still mounted", path)
        # The kernel lets go of a device some moments after its last user; nothing tells when.
        time.sleep(0.005)


def _has_loop(path: str) -> bool:
    for name in os.listdir("/sys/block"):
        if name.startswith("loop"):
            try:
                with open(f"/sys/block/{name}/loop/backing_file") as file:
                    if file.read().rstrip("\n") == path:
                        return True
            except OSError:
                continue  # it has no file
    return False


def mount_image(path: str, target: str, *, readonly: bool) -> None:
    """Mount an image at an existing directory; the loop device goes when the mount goes."""
    if not readonly:
        wait_unused(path)
    backing = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        loop, device = _attach_loop(backing, readonly)
    finally:
        os.close(backing)
    try:
        flags = sys_.MS_NODEV | (sys_.MS_RDONLY if readonly else 0)
        sys_.mount(device, target, "ext4", flags, "noload" if readonly else "discard,noinit_itable")
    finally:
        os.close(loop)


def _attach_loop(backing: int, readonly: bool) -> tuple[int, str]:
    """A loop device for a file: its descriptor and its path."""
    flags = _AUTOCLEAR | (_READ_ONLY if readonly else 0)
    # struct loop_config: the file, the block size, and of struct loop_info64 only the flags.
    wanted = struct.pack("=II", backing, 0) + bytes(52) + struct.pack("=I", flags) + bytes(176 + 64)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            loop = os.open(device, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop, _LOOP_CONFIGURE, wanted)
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:
                    raise
                continue  # somebody else was faster
            return loop, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device is free")


def unmount_image(target: str) -> None:
    """Take the mount away and its directory. Nothing happens when there is none."""
    try:
        sys_.unmount(target)
        os.rmdir(target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
