"""A load run of the service: honest and hostile programs, every answer checked, nothing left behind.

    python3 load.py SNAPSHOT [--requests 200] [--concurrency 4]

Starts the service, sends it the programs below in turn, checks each answer, and then looks at what the
service has on this machine: processes, mounts, control groups and descriptors must be as before the first
request, and gone when it has ended. Exits with 1 and says what was wrong otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Check = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True)
class Case:
    """A program and what its answer must be."""

    name: str
    source: str
    right: Check
    weight: int = 1


def says(stdout: str, exit_code: int = 0) -> Check:
    """It ends by itself and says this."""
    return lambda a: (a["stdout"], a["exit_code"], a["limit"]) == (stdout, exit_code, None)


def stopped(*limits: str) -> Check:
    """One of these limits stops it."""
    return lambda a: a["limit"] in limits


def fails(words: str) -> Check:
    """It ends by itself with a traceback that says this."""
    return lambda a: a["exit_code"] == 1 and a["limit"] is None and words in a["stderr"]


CASES = (
    Case("arithmetic", "print(6 * 7)", says("42\n"), weight=8),
    Case("unicode", "print('grüße, 世界')", says("grüße, 世界\n"), weight=4),
    Case("exit code", "import sys; print('so'); sys.exit(3)", says("so\n", 3), weight=4),
    Case("a traceback", "1 / 0", fails("ZeroDivisionError"), weight=4),
    Case("no program", "\x00", lambda a: a["exit_code"] == 1 and a["limit"] is None),
    Case(
        "many small files",
        "for i in range(500): open(f'/tmp/{i}', 'w').write('x')\nprint('ok')",
        says("ok\n"),
    ),
    Case(
        "it is alone",
        "import os; print(sorted(p for p in os.listdir('/proc') if p.isdigit())[0])",
        says("1\n"),
    ),
    Case(
        "it begins anew",
        "import os; print(os.path.exists('/tmp/mark')); open('/tmp/mark', 'w')",
        says("False\n"),
        weight=3,
    ),
    Case("endless loop", "while True: pass", stopped("cpu"), weight=2),
    Case(
        "endless loop that ignores signals",
        "import signal\nfor n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n"
        " except (OSError, ValueError): pass\nwhile True: pass",
        stopped("cpu"),
    ),
    Case("sleep", "import time; time.sleep(1000)", stopped("time")),
    Case(
        "memory bomb",
        "x = []\nwhile True: x.append(bytearray(b'x' * 1_000_000))",
        stopped("memory"),
        weight=2,
    ),
    Case(
        "memory as files",
        "import os\nwhile True: open('/dev/shm/' + os.urandom(8).hex(), 'wb').write(b'x' * 1_000_000)",
        stopped("memory", "disk"),
    ),
    Case("fork bomb", "import os\nwhile True: os.fork()", stopped("pids"), weight=2),
    Case(
        "stubborn fork bomb",
        "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
        stopped("cpu", "time", "pids"),
    ),
    Case(
        "thread bomb",
        "import threading, time\n"
        "while True: threading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
        stopped("pids"),
    ),
    Case(
        "processes it leaves behind",
        "import os, time\nfor _ in range(5):\n if os.fork() == 0:\n  os.setsid(); os.close(1); os.close(2);"
        " time.sleep(1000)\nprint('left')",
        says("left\n"),
    ),
    Case("endless output", "while True: print('x' * 1000)", stopped("output"), weight=2),
    Case("endless errors", "import sys\nwhile True: print('x' * 1000, file=sys.stderr)", stopped("output")),
    Case(
        "disk fill",
        "f = open('/tmp/big', 'wb')\nwhile True: f.write(b'x' * 100_000)",
        stopped("disk"),
        weight=2,
    ),
    Case(
        "inode fill", "import os\nwhile True: os.mkdir('/tmp/' + os.urandom(8).hex())", stopped("disk", "cpu")
    ),
    Case(
        "network",
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=3)",
        fails("unreachable"),
        weight=2,
    ),
    Case("a name", "import socket; socket.getaddrinfo('mirror.example', 80)", fails("gaierror")),
    Case("a secret file", "print(open('/etc/shadow').read())", fails("PermissionError")),
    Case("a system file", "open('/etc/passwd', 'a')", fails("PermissionError")),
    Case("kill everybody", "import os; os.kill(-1, 9)", lambda a: a["limit"] is None),
    Case("the kernel's settings", "open('/proc/sys/kernel/core_pattern', 'w')", fails("Error")),
)


def programs(count: int) -> list[Case]:
    """So many programs, each kind at least once when there is room, mixed."""
    wheel = [case for turn in range(8) for case in CASES if case.weight > turn]
    return [wheel[number % len(wheel)] for number in range(count)]


def ask(url: str, source: str) -> dict[str, Any]:
    """Send a program; the answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, source.encode(), timeout=120) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


@dataclass(frozen=True)
class Holdings:
    """What a process and all below it have on this machine. Processes count by name: the engine keeps a few
    prepared for the next sandbox, and replaces them."""

    processes: tuple[str, ...]
    mounts: int
    groups: frozenset[str]
    descriptors: int


def holdings(top: int) -> Holdings:
    """Look at a process and its descendants."""
    below = descendants(top)
    mounts, groups, names = 0, set(), []
    for pid in below | {top}:
        try:
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
            mounts = max(mounts, len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()))
            groups |= set(Path(f"/proc/{pid}/cgroup").read_text().splitlines())
        except OSError:
            continue
    return Holdings(tuple(sorted(names)), mounts, frozenset(groups), len(os.listdir(f"/proc/{top}/fd")))


def descendants(top: int) -> frozenset[int]:
    """The processes below a process."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found: set[int] = set()
    waiting = [top]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return frozenset(found)


def sandbox_groups() -> frozenset[str]:
    """Every control group of a sandbox of this machine."""
    found = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"{directory}/{name}" for name in names if name.startswith("s-")}
    return frozenset(found)


def settled(look: Callable[[], Any], wanted: Any, seconds: float = 10.0) -> Any:
    """What is seen as soon as it is what is wanted, or when the time is over: ends are told with a delay."""
    deadline = time.monotonic() + seconds
    while (seen := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


def steady(look: Callable[[], Any]) -> Any:
    """What is seen twice in a row, a moment apart."""
    seen = look()
    while True:
        time.sleep(0.2)
        before, seen = seen, look()
        if seen == before:
            return seen


def load(service: subprocess.Popen[str], url: str, requests: int, concurrency: int) -> list[str]:
    """Send the programs; what was wrong."""
    wrong: list[str] = []
    kinds: Counter[str] = Counter()
    ask(url, "pass")
    before, groups = steady(lambda: holdings(service.pid)), sandbox_groups()

    def one(case: Case) -> None:
        kinds[case.name] += 1
        try:
            answer = ask(url, case.source)
            right = case.right(answer)
        except Exception as error:
            answer, right = {"error": repr(error)}, False
        if not right:
            shown = {
                name: value[-300:] if isinstance(value, str) else value for name, value in answer.items()
            }
            wrong.append(f"{case.name}: {shown}")

    started = time.monotonic()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(one, programs(requests)))
    took = time.monotonic() - started
    after = settled(lambda: holdings(service.pid), before)
    wrong += [
        f"left behind: {name}: {getattr(before, name)} -> {getattr(after, name)}"
        for name in ("processes", "mounts", "groups", "descriptors")
        if getattr(after, name) != getattr(before, name)
    ]
    left = settled(lambda: sandbox_groups() - groups, frozenset())
    if left:
        wrong.append(f"left behind: control groups {sorted(left)}")
    print(f"{requests} requests of {len(kinds)} kinds in {took:.1f} s, {len(wrong)} wrong", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Send honest and hostile programs to the service.")
    parser.add_argument("snapshot")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=4)
    given = parser.parse_args()
    command = [sys.executable, str(Path(__file__).with_name("service.py")), given.snapshot, "--port", "0"]
    if given.home:
        command += ["--home", str(given.home)]
    # Time enough for a second of processor time on a machine that has much else to do.
    command += ["--concurrency", str(given.concurrency), "--time", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        url = service.stdout.readline().strip()
        if not url:
            return 1
        try:
            wrong = load(service, url, given.requests, given.concurrency)
            below = descendants(service.pid)
        finally:
            service.send_signal(signal.SIGTERM)
    left = settled(lambda: {pid for pid in below if Path(f"/proc/{pid}").exists()}, set())
    if left:
        wrong.append(f"left behind after its end: processes {sorted(left)}")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
