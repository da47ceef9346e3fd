"""The measurements of boot.py that go through the API, for one user: a JSON document on standard output.

Run by boot.py with the Python of an installed sandboxfile, as root or as an ordinary user.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from sandboxfile.api import AsyncClient
from sandboxfile.engine.base import Command

TRUE = Command(("true",), {"PATH": "/usr/bin:/bin"})
WARM_UP = 3
BASE = "name: boot-base\nbase: debian:13\n"
UNITS = {"KB": 1000, "MB": 1000**2, "GB": 1000**3}


def bytes_of(text: str) -> int:
    """`100MB` as a number."""
    return int(text[:-2]) * UNITS[text[-2:]]


class Measurement:
    """One store, one client, and what is asked of them."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.home = Path(wanted["home"])
        self.rounds: int = wanted["rounds"]
        self.client = AsyncClient(home=self.home)

    async def all(self) -> dict[str, Any]:
        """Every section that is wanted, by its name."""
        sections: dict[str, Callable[[], Awaitable[Any]]] = {
            "latency": self.latency,
            "trace": self.trace,
            "layers": self.layers,
            "size": self.sizes,
            "process": self.whole_process,
            "rate": self.rates,
            "volume": self.volumes,
            "memory": self.memory,
        }
        found = {}
        try:
            self.base = await self.build("boot-base", BASE)
            for name, section in sections.items():
                if name in self.wanted["sections"]:
                    say(f"  {name}")
                    found[name] = await section()
        finally:
            await self.client.close()
        return found

    async def build(self, name: str, text: str) -> str:
        """Build a Sandboxfile, with the base's lock; the snapshot's slug."""
        directory = self.home.parent / name
        directory.mkdir(exist_ok=True)
        (directory / "Sandboxfile").write_text(text)
        lock = self.home.parent / "boot-base" / "sandboxfile.lock"
        if lock.exists():
            (directory / "sandboxfile.lock").write_bytes(lock.read_bytes())
        return (await self.client.build(self.client.load(directory=directory))).slug

    async def boot(self, slug: str) -> dict[str, float]:
        """One sandbox: seconds to its creation, to the first command's exit, and of its end."""
        snapshot = self.client.snapshot(slug)
        begin = time.perf_counter()
        sandbox = await self.client.start(snapshot)
        created = time.perf_counter()
        try:
            completed = await sandbox.execute(TRUE, lambda *_: None)
            done = time.perf_counter()
        finally:
            await sandbox.close()
        if completed.exit_code:
            raise RuntimeError(f"`true` ended with {completed.exit_code}")
        end = time.perf_counter()
        return {"create": created - begin, "total": done - begin, "close": end - done}

    async def boots(self, slug: str) -> dict[str, list[float]]:
        """Several of them, one after the other."""
        for _ in range(WARM_UP):
            await self.boot(slug)
        each = [await self.boot(slug) for _ in range(self.rounds)]
        return {name: [sample[name] for sample in each] for name in each[0]}

    async def latency(self) -> dict[str, list[float]]:
        """From create to the first command's exit."""
        return await self.boots(self.base)

    async def layers(self) -> dict[str, list[float]]:
        """The same on stacks of several depths."""
        found = {}
        for count in self.wanted["layers"]:
            steps = "".join(f"  - echo {number} > /srv/{number}\n" for number in range(1, count))
            text = BASE.replace("boot-base", f"boot-l{count}") + (f"run:\n{steps}" if steps else "")
            found[f"{count}"] = (await self.boots(await self.build(f"layers-{count}", text)))["total"]
        return found

    async def sizes(self) -> dict[str, list[float]]:
        """The same on snapshots of several sizes, of real and of sparse files."""
        found = {}
        for text in self.wanted["sizes"]:
            size = bytes_of(text)
            for kind, step in (
                ("real", f"for n in 1 2 3 4 5; do head -c {size // 5} /dev/urandom > /srv/$n; done"),
                ("sparse", f"truncate -s {size} /srv/sparse"),
            ):
                name = f"boot-{kind[0]}{text.lower()}"
                slug = await self.build(name, f"{BASE.replace('boot-base', name)}run:\n  - {step}\n")
                found[f"{text} {kind}"] = (await self.boots(slug))["total"]
        return found

    async def trace(self) -> list[tuple[str, float, float]]:
        """The steps of one boot of about median length: what, when it began, how long it took."""
        from sandboxfile.engines.linux.helper_client import HelperClient

        steps: list[tuple[str, float, float]] = []
        ask, exit_of = HelperClient.ask, HelperClient.exit_of

        async def timed(what: str, work: Awaitable[Any]) -> Any:
            begin = time.perf_counter()
            try:
                return await work
            finally:
                steps.append((what, begin, time.perf_counter()))

        async def traced_ask(self: HelperClient, *operations: Any, **options: Any) -> Any:
            names = " ".join(operation.op for operation in operations)
            return await timed(f"helper: {names}", ask(self, *operations, **options))

        async def traced_exit(self: HelperClient, job: int) -> int:
            code: int = await timed("a program runs", exit_of(self, job))
            return code

        HelperClient.ask, HelperClient.exit_of = traced_ask, traced_exit  # type: ignore[method-assign]
        try:
            runs = []
            for _ in range(WARM_UP + 15):
                steps.clear()
                begin = time.perf_counter()
                taken = await self.boot(self.base)
                shown = [
                    (what, at - begin, until - at) for what, at, until in sorted(steps, key=lambda s: s[1])
                ]
                shown.append(("(create)", 0.0, taken["create"]))
                shown.append(("(first command)", taken["create"], taken["total"] - taken["create"]))
                shown.append(("(close)", taken["total"], taken["close"]))
                runs.append((taken["total"], shown))
        finally:
            HelperClient.ask, HelperClient.exit_of = ask, exit_of  # type: ignore[method-assign]
        runs = sorted(runs[WARM_UP:], key=lambda run: run[0])
        return sorted(runs[len(runs) // 2][1], key=lambda step: (step[1], -step[2]))

    async def whole_process(self) -> list[float]:
        """`run SLUG -- true`."""
        program = Path(sys.executable).with_name("sandboxfile")
        argv: list[str | Path] = [program, "--home", self.home, "run", self.base, "--", "true"]
        return [whole(argv) for _ in range(WARM_UP + self.rounds)][WARM_UP:]

    async def rates(self) -> dict[str, float]:
        """Sandboxes a second, each with one command, by how many are at work at once."""
        found = {}
        for concurrency in self.wanted["concurrency"]:
            total = max(self.rounds, 40) * 2
            left = iter(range(total))

            async def one(left: Any = left) -> None:
                for _ in left:
                    await self.boot(self.base)

            await self.boot(self.base)
            begin = time.perf_counter()
            await asyncio.gather(*(one() for _ in range(concurrency)))
            found[str(concurrency)] = total / (time.perf_counter() - begin)
        return found

    async def volumes(self) -> dict[str, list[float]] | None:
        """Snapshots of detached volumes, by what is written to them."""
        if not hasattr(self.client, "volumes"):
            return None
        found: dict[str, list[float]] = {}
        for text in self.wanted["volume_sizes"]:
            samples = found.setdefault(text, [])
            for number in range(3):
                slug = f"boot-v{text.lower()}-{number}"
                await self.client.volumes.create(slug, None, from_=self.base)
                sandbox = await self.client.sandboxes.create(root=slug)
                try:
                    await sandbox.sh(f"head -c {bytes_of(text)} /dev/zero > /srv/file; sync /srv/file")
                finally:
                    await sandbox.kill()
                begin = time.perf_counter()
                await self.client.volumes.snapshot(slug, f"{slug}-s")
                samples.append(time.perf_counter() - begin)
                await self.client.snapshots.delete(f"{slug}-s")
                await self.client.volumes.delete(slug)
        return found

    async def memory(self) -> dict[str, float]:
        """What the host has less for each of many idle sandboxes. Three looks each, the middle one counts:
        others on the host come and go."""
        count = self.wanted["idle"]
        snapshot = self.client.snapshot(self.base)
        await self.boot(self.base)
        before = await available()
        sandboxes: list[Any] = []
        try:
            while len(sandboxes) < count:
                sandboxes.append(await self.client.start(snapshot))
            during = await available()
        finally:
            await asyncio.gather(*(sandbox.close() for sandbox in sandboxes))
        after = await available()
        return {"count": count, "before": before, "during": during, "after": after}


async def available() -> float:
    """The host's MemAvailable in bytes."""
    looks = []
    for _ in range(3):
        await asyncio.sleep(1)
        lines = Path("/proc/meminfo").read_text().splitlines()
        looks += [int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")]
    return sorted(looks)[1]


def whole(argv: Sequence[str | Path]) -> float:
    """Seconds of one process. Raises CalledProcessError."""
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(asyncio.run(Measurement(json.loads(sys.argv[1])).all())))
