"""The conformance suite: the promises that every engine keeps.

    @pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.name)
    async def test_my_engine(promise):
        if missing := promise.needs - engine.capabilities:
            pytest.skip(f"the engine lacks {', '.join(missing)}")
        await promise(engine, stack)

The stack has a shell and the usual small programs in the Debian places, /bin a link to usr/bin, the users
root, daemon and nobody, and perl (see `sandboxes.SERVER`): a Debian minbase. /opt is empty.
"""

from __future__ import annotations

from sandboxfile.testing import commands, detached, files, layers, limits, outside, sandboxes, volumes
from sandboxfile.testing.promise import Promise

PROMISES: tuple[Promise, ...] = (
    *commands.PROMISES,
    *layers.PROMISES,
    *files.PROMISES,
    *sandboxes.PROMISES,
    *volumes.PROMISES,
    *limits.PROMISES,
    *outside.PROMISES,
    *detached.PROMISES,
)

__all__ = ["PROMISES", "Promise"]
