"""What something took of the whole machine: processor time and memory, others included."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_INTERVAL = 0.05


@dataclass
class Meter:
    """Measures while it is entered.

    processor: seconds that the machine's processors were busy, with whatever else ran
    memory:    bytes that were available before and were not at the worst moment
    """

    processor: float = 0.0
    memory: int = 0

    def __enter__(self) -> Meter:
        self._busy, self._free = _busy(), _available()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watch.join()
        self.processor = _busy() - self._busy

    def _look(self) -> None:
        while True:
            self.memory = max(self.memory, self._free - _available())
            if self._over.wait(_INTERVAL):
                return


def _busy() -> float:
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    # user, nice, system, idle, iowait, irq, softirq, steal: all but the two idle ones
    return (sum(ticks[:3]) + sum(ticks[5:8])) / os.sysconf("SC_CLK_TCK")


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
