"""The system calls that Python has no wrapper for. Used by the helper and its workers only.

Nothing here decides anything; every function raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38

# The numbers of these calls are the same on every architecture; only x32 and alpha differ.
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_OPENAT2 = 437
_MOUNT_SETATTR = 442

_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
_KEYCTL_JOIN_SESSION_KEYRING = 1

_CAPABILITY_VERSION = 0x20080522
_IN_DELETE_SELF = 0x400
_IN_MOVE_SELF = 0x800

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, *about: str | bytes | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *about[:1])
    return result


def _syscall(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def unshare(flags: int) -> None:
    """Leave the given namespaces for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)))


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespace a descriptor stands for."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)))


def prctl(option: int, value: int | bytes) -> None:
    """Set an attribute of this process."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    _checked(_libc.prctl(ctypes.c_int(option), argument, 0, 0, 0))


def drop_capabilities() -> None:
    """Hold no capability from now on, nor get one by running a program."""
    _checked(_libc.prctl(ctypes.c_int(_PR_SET_NO_NEW_PRIVS), ctypes.c_ulong(1), 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())))


def watch_removal(path: str) -> int:
    """A descriptor that can be read once a directory is removed, or renamed."""
    descriptor = _checked(_libc.inotify_init1(ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK)))
    wanted = ctypes.c_uint32(_IN_DELETE_SELF | _IN_MOVE_SELF)
    try:
        _checked(_libc.inotify_add_watch(ctypes.c_int(descriptor), os.fsencode(path), wanted), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """The classic mount call."""
    values = [None if value is None else os.fsencode(value) for value in (source, target, kind, data)]
    _checked(_libc.mount(values[0], values[1], values[2], ctypes.c_ulong(flags), values[3]), target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Take a mount away; by default at once for new users, and for good when the last one goes."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def syncfs(descriptor: int) -> None:
    """Put everything of a file system on disk, so that it survives a loss of power."""
    _checked(_libc.syncfs(ctypes.c_int(descriptor)))


def fsopen(kind: str) -> int:
    """A descriptor of a file system that is being configured."""
    return _checked(_syscall(_FSOPEN, ctypes.c_char_p(kind.encode()), ctypes.c_uint(1)), kind)


def fsconfig(descriptor: int, key: str, value: str | None = None) -> None:
    """Give a file system an option: a flag, or a string."""
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    text = None if value is None else os.fsencode(value)
    _checked(
        _syscall(
            _FSCONFIG,
            ctypes.c_int(descriptor),
            ctypes.c_uint(command),
            ctypes.c_char_p(key.encode()),
            ctypes.c_char_p(text),
            ctypes.c_int(0),
        ),
        key,
    )


def fscreate(descriptor: int) -> None:
    """Make the file system that was configured."""
    _checked(
        _syscall(
            _FSCONFIG,
            ctypes.c_int(descriptor),
            ctypes.c_uint(FSCONFIG_CMD_CREATE),
            None,
            None,
            ctypes.c_int(0),
        )
    )


def fsmount(descriptor: int, attributes: int = 0) -> int:
    """A descriptor of a mount of the file system, attached nowhere yet."""
    return _checked(_syscall(_FSMOUNT, ctypes.c_int(descriptor), ctypes.c_uint(1), ctypes.c_uint(attributes)))


def open_tree(path: str) -> int:
    """A descriptor of a recursive copy of the mount tree at a path, attached nowhere."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
    return _checked(
        _syscall(
            _OPEN_TREE, ctypes.c_int(AT_FDCWD), ctypes.c_char_p(os.fsencode(path)), ctypes.c_uint(flags)
        ),
        path,
    )


def mount_setattr(descriptor: int, attributes: int) -> None:
    """Set attributes of a whole tree of mounts."""
    value = _MountAttr(attributes, 0, 0, 0)
    _checked(
        _syscall(
            _MOUNT_SETATTR,
            ctypes.c_int(descriptor),
            ctypes.c_char_p(b""),
            ctypes.c_uint(AT_EMPTY_PATH | AT_RECURSIVE),
            ctypes.byref(value),
            ctypes.c_size_t(ctypes.sizeof(value)),
        )
    )


def move_mount(descriptor: int, target: str) -> None:
    """Attach a mount at a path."""
    _checked(
        _syscall(
            _MOVE_MOUNT,
            ctypes.c_int(descriptor),
            ctypes.c_char_p(b""),
            ctypes.c_int(AT_FDCWD),
            ctypes.c_char_p(os.fsencode(target)),
            ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
        ),
        target,
    )


def open_in_root(root: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open a path as a process whose root directory is `root` would: `..` and links never lead out."""
    how = _OpenHow(
        flags | os.O_CLOEXEC,
        mode if flags & os.O_CREAT else 0,
        RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve,
    )
    while True:
        result = _syscall(
            _OPENAT2,
            ctypes.c_int(root),
            ctypes.c_char_p(os.fsencode(path) or b"."),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        # EAGAIN: a rename elsewhere made the kernel unable to prove that `..` stayed inside; ask again.
        if result >= 0 or ctypes.get_errno() != 11:
            return _checked(result, path)


def join_session_keyring() -> None:
    """Leave the session keyring this process was started with for an empty one of its own."""
    number = _KEYCTL.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _checked(_syscall(number, ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), None))


def set_file_ids(uid: int, gid: int) -> None:
    """Act on files as another user of this user namespace; with 0, as root again, capabilities and all."""
    # The old value is returned whatever happens: a second call with an impossible id tells the present one.
    for call, wanted in ((_libc.setfsgid, gid), (_libc.setfsuid, uid)):
        call(ctypes.c_uint(wanted))
        if call(ctypes.c_uint(0xFFFFFFFF)) != wanted:
            raise OSError(1, os.strerror(1))


def file_system_kind(descriptor: int) -> int:
    """The magic number of the file system a descriptor, which may be an O_PATH one, is on."""
    buffer = (ctypes.c_long * 64)()
    _checked(_libc.fstatfs(ctypes.c_int(descriptor), ctypes.byref(buffer)))
    return int(buffer[0]) & 0xFFFFFFFF


def is_mount(parent: int, name: bytes) -> bool:
    """Whether something is mounted on an entry of a directory, in the namespace the directory was opened in;
    links are not followed."""
    buffer = ctypes.create_string_buffer(256)
    flags = 0x100  # AT_SYMLINK_NOFOLLOW
    _checked(_libc.statx(ctypes.c_int(parent), ctypes.c_char_p(name), flags, ctypes.c_uint(0), buffer))
    return bool(int.from_bytes(buffer.raw[8:16], sys.byteorder) & 0x2000)  # STATX_ATTR_MOUNT_ROOT
