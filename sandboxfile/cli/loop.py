"""Running coroutines with signals: the first one stops the work cleanly, a second one ends the process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

from sandboxfile.cli.exits import INTERRUPTED
from sandboxfile.cli.failure import InterruptedBySignal

# asyncio loads OpenSSL for streams that nothing here uses: a tenth of the time that `run` takes to start.
_known = "ssl" in sys.modules
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
import asyncio  # noqa: E402

if not _known:
    del sys.modules["ssl"]

Handler = Callable[[int], None]
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """What happens on SIGINT, SIGTERM and SIGHUP while a coroutine runs.

    emergency: called before the process ends at once (a second signal), to give the terminal back
    """

    def __init__(self, emergency: Callable[[], None]) -> None:
        self._emergency = emergency
        self._task: asyncio.Task[object] | None = None
        self._diverted: Handler | None = None
        self.stopped_by: int | None = None

    def stop(self, number: int) -> None:
        """Cancel the work; the second time, end the process."""
        if self.stopped_by is not None:
            self._emergency()
            os._exit(INTERRUPTED)
        self.stopped_by = number
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def divert(self, handler: Handler) -> Iterator[None]:
        """Give signals to someone else: to the command that runs in the foreground."""
        before, self._diverted = self._diverted, handler
        try:
            yield
        finally:
            self._diverted = before

    def _arrived(self, number: int) -> None:
        if self._diverted is not None and self.stopped_by is None:
            self._diverted(number)
        else:
            self.stop(number)

    async def guard(self, work: Coroutine[object, object, int]) -> int:
        """Run work with the signals handled. Raises InterruptedBySignal when one stopped it."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        # A signal that was ignored when we started (nohup, a background job) stays ignored.
        ours = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        for number in ours:
            loop.add_signal_handler(number, self._arrived, number)
        try:
            return await work
        except (asyncio.CancelledError, Exception):
            # When we are stopping, an error is only what being stopped looks like from inside.
            if self.stopped_by is not None:
                raise InterruptedBySignal(self.stopped_by) from None
            raise
        finally:
            for number in ours:
                loop.remove_signal_handler(number)


def run_until_done(work: Coroutine[object, object, int], signals: Signals) -> int:
    """Run a coroutine to its end; its exit code. Raises what it raises, or InterruptedBySignal."""
    with asyncio.Runner() as runner:
        return runner.run(signals.guard(work))
