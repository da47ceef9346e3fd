"""Bootstrapping a Debian base: a local archive of given packages, and mmdebstrap on it."""

from __future__ import annotations

import os
import shutil
import signal
from typing import Any

from sandboxfile.engines.linux import syscalls as sys_
from sandboxfile.engines.linux.worker.tasks import Context


def repository(context: Context) -> None:
    """Lay out an archive below `path`: `files` as [origin, relative path], `texts` as relative -> content.
    The copies can be read by the sandboxes' ids, which the origins need not be."""
    top = context.args["path"]
    for origin, relative in context.args["files"]:
        target = f"{top}/{relative}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(origin, target)
    for relative, text in context.args["texts"].items():
        target = f"{top}/{relative}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w") as file:
            file.write(text)


def bootstrap(context: Context) -> dict[str, Any]:
    """Run a program as user 0 of the sandboxes, in pid, mount, ipc, uts and (empty) network namespaces.
    Its output goes to `descriptors[0]`; the result is its exit code."""
    args = context.args
    output = context.descriptors[0]
    sys_.unshare(
        sys_.CLONE_NEWNS | sys_.CLONE_NEWPID | sys_.CLONE_NEWIPC | sys_.CLONE_NEWUTS | sys_.CLONE_NEWNET
    )
    pid = os.fork()
    if pid == 0:
        try:
            sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
            _become(args, output)
        finally:
            os._exit(125)
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status)}


def _become(args: dict[str, Any], output: int) -> None:
    sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)
    sys_.mount("proc", "/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    os.chdir("/")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDONLY)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)
    os.execve(args["argv"][0], args["argv"], args["env"])
