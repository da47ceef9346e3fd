"""Work inside a running sandbox's namespaces, by a worker that enters them: the guest runs none of it."""

from __future__ import annotations

import errno
import os

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.netlink import addresses
from sandboxfile.engines.linux.netlink import block as block_network
from sandboxfile.engines.linux.worker.tasks import Context


def _enter(pid: int, *names: str) -> None:
    kinds = {"user": sys_.CLONE_NEWUSER, "mnt": sys_.CLONE_NEWNS, "net": sys_.CLONE_NEWNET}
    opened = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kinds[name]) for name in names]
    for descriptor, kind in opened:
        sys_.setns(descriptor, kind)
        os.close(descriptor)


def attach(context: Context) -> list[str]:
    """Mount directories and files of this machine, read-only, into a running sandbox; what was made."""
    trees = []
    for origin, target in context.args["mounts"]:
        tree = sys_.open_tree(origin)
        attributes = sys_.MOUNT_ATTR_RDONLY | sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NODEV
        sys_.mount_setattr(tree, attributes)
        trees.append((tree, target, os.path.isdir(origin)))
    _enter(context.args["pid"], "user", "mnt")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    for tree, target, _ in trees:
        sys_.move_mount(tree, target)
        os.close(tree)
    return [target for _, target, _ in trees]


def detach(context: Context) -> None:
    """Take such mounts away again."""
    _enter(context.args["pid"], "user", "mnt")
    for target in reversed(context.args["targets"]):
        sys_.unmount(target)


def block(context: Context) -> list[str]:
    """Make the host's own addresses and link-local ones unreachable from a network namespace; which."""
    own = set(addresses())
    descriptor = os.open(context.args["net"], os.O_RDONLY | os.O_CLOEXEC)
    sys_.setns(descriptor, sys_.CLONE_NEWNET)
    inside = set(addresses())
    blocked = ["169.254.0.0/16", "fe80::/10"]
    blocked += [f"{each}/{128 if ':' in each else 32}" for each in sorted(own - inside)]
    for network in blocked:
        try:
            block_network(network)
        except OSError as error:
            # A kernel without IPv6 has nothing to block there.
            if ":" not in network or error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                raise
    return blocked
