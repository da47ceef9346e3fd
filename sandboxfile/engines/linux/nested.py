"""User namespaces that hold at most so many processes, where control groups cannot count them.

The kernel gives a new user namespace the limit on processes of the task that makes it, as a ceiling for all
users of that namespace together. It counts them for the maker in the parent namespace, so a parent for each
sandbox, with the same ids as the helper's, keeps the sandboxes' counts apart.
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxfile.engines.linux.namespaces import IdMaps


class LimitedHolder:
    """A child that keeps a user namespace with a ceiling, and a network namespace, until `close`."""

    def __init__(self, maps: IdMaps, processes: int) -> None:
        from sandboxfile.engines.linux.namespaces import fork

        outer, self._ready, self._go = fork(lambda ready, go: _outer(maps, processes, ready, go))
        try:
            if not os.read(self._ready, 1):
                raise PermissionError(1, "a user namespace cannot be made")
            maps.write_same(outer)
            os.write(self._go, b"g")
            said = os.read(self._ready, 32)
            if not said:
                raise PermissionError(1, "a user namespace cannot be made in another")
            self.pid = int(said)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the child go."""
        os.close(self._go)
        os.close(self._ready)


def _outer(maps: IdMaps, processes: int, ready: int, go: int) -> None:
    from sandboxfile.engines.linux.namespaces import enter_user_namespace, fork

    enter_user_namespace(ready, go)
    # Who makes a namespace has to be somebody in the one above it.
    maps.become_first()
    inner, inner_ready, inner_go = fork(lambda r, g: _inner(processes, r, g, ready, go))
    if os.read(inner_ready, 1):
        # Only a process of the parent namespace may do this.
        maps.write(inner)
        os.write(inner_go, b"g")
        # It has left this pipe when it is ready, or is gone.
        os.read(inner_ready, 1)


def _inner(processes: int, inner_ready: int, inner_go: int, ready: int, go: int) -> None:
    from sandboxfile.engines.linux.namespaces import enter_user_namespace, furnish

    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    enter_user_namespace(inner_ready, inner_go)
    furnish()
    os.write(ready, str(os.getpid()).encode())
    os.close(inner_ready)
    # Until the helper holds the namespaces and closes its end.
    os.read(go, 1)
