"""Making mounts, in the helper. What to mount is said by `operations`; this does it."""

from __future__ import annotations

import errno
import os

from sandboxfile.engines.linux import syscalls as sys_

CLASSIC_OPTION_LIMIT = 4000
"""The classic mount call takes one page of options."""


def overlay(target: str, lowers: list[str], upper: str, work: str, links: str) -> None:
    """Mount lower directories, topmost first, and a writable upper one at `target`. Without `upper` the
    overlay is read-only and needs at least two lowers.

    An option is at most 255 characters long, and takes no commas or colons in the classic call. So options
    are names of descriptors; in the classic call, short symbolic links in `links`, our empty directory.
    """
    try:
        _overlay_new(target, lowers, upper, work)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        for number, lower in enumerate(lowers):
            os.symlink(lower, f"{links}/{number}")
        if upper:
            os.symlink(upper, f"{links}/u")
            os.symlink(work, f"{links}/w")
        _overlay_classic(target, len(lowers), bool(upper), links)


def _overlay_new(target: str, lowers: list[str], upper: str, work: str) -> None:
    opened: list[int] = []

    def named(path: str) -> str:
        opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{opened[-1]}"

    try:
        context = sys_.fsopen("overlay")
        opened.append(context)
        sys_.fsconfig(context, "source", "sandboxfile")
        sys_.fsconfig(context, "userxattr")
        for lower in lowers:
            sys_.fsconfig(context, "lowerdir+", named(lower))
        if upper:
            sys_.fsconfig(context, "upperdir", named(upper))
            sys_.fsconfig(context, "workdir", named(work))
        sys_.fscreate(context)
        mounted = sys_.fsmount(context)
        opened.append(mounted)
        sys_.move_mount(mounted, target)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _overlay_classic(target: str, count: int, writable: bool, links: str) -> None:
    """For kernels before 6.8, which know no `lowerdir+`; names are relative to keep the options short."""
    options = "userxattr,lowerdir=" + ":".join(str(number) for number in range(count))
    if writable:
        options += ",upperdir=u,workdir=w"
    if len(options) > CLASSIC_OPTION_LIMIT:
        raise OSError(errno.E2BIG, "the stack has more layers than this kernel can mount", target)
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(links)
        sys_.mount("sandboxfile", target, "overlay", 0, options)
    finally:
        os.fchdir(before)
        os.close(before)


def bind(source: str, target: str, *, readonly: bool) -> None:
    """Show a file or directory at another place as well, with everything mounted below it."""
    tree = sys_.open_tree(source)
    try:
        attributes = sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NODEV
        if readonly:
            sys_.mount_setattr(tree, attributes | sys_.MOUNT_ATTR_RDONLY)
        sys_.move_mount(tree, target)
    finally:
        os.close(tree)


def tmpfs(target: str, *, size: int | None, mode: int = 0o755) -> None:
    """Mount a file system in memory; `size` in bytes, None is the kernel's default of half the memory."""
    options = f"mode={mode:o}"
    if size:
        # An inode takes about a kilobyte that `size` does not count.
        options += f",size={size},nr_inodes={1024 + size // 4096}"
    sys_.mount("tmpfs", target, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, options)


def private_view(base: str, *, cover_cgroups: bool) -> None:
    """The helper's own mounts: nothing propagates out, /proc shows its processes, `base` is its memory.

    crun refuses hosts that have cgroup v1 and v2 side by side, so those get a plain v2 tree here.
    """
    sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_SLAVE)
    sys_.mount("proc", "/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    sys_.mount("tmpfs", base, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "mode=755")
    if cover_cgroups:
        sys_.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)


def unmount_below(path: str) -> None:
    """Take away every mount at or below a path, the deepest first."""
    with open("/proc/self/mountinfo", "rb") as table:
        targets = [line.split()[4] for line in table]
    prefix = os.fsencode(path)
    for target in reversed(targets):
        name = target.replace(b"\\040", b" ").replace(b"\\134", b"\\")
        if name == prefix or name.startswith(prefix + b"/"):
            sys_.unmount(os.fsdecode(name))
