"""How cost grows: planning and nothing-changed by layers and by context files, one more package by packages.

    python3 benchmarks/scale.py [--rounds N] [--sections layers files packages] [--sandboxfile PATH]
                                [--scratch DIR] [--record]

With --record, writes the table into RESULTS.md and the pictures scale-*.svg beside this file.
`layers` and `files` need nothing from the host: the layers come from the memory engine. `packages` builds
real environments with the linux engine and needs the archive.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scale_chart import Series, chart
from scale_table import markdown, replace_section

HERE = Path(__file__).resolve().parent
LAYERS = (10, 30, 100, 300, 1000)
FILES = (10, 100, 1000, 10_000, 100_000)
PACKAGES = (10, 30, 100, 300)
SETTLE = 2.2
"""Seconds after which a file that was written is believed by its times."""


def main() -> int:
    """Measure, print, and record if asked."""
    options = _arguments()
    series: list[Series] = []
    scratch = Path(tempfile.mkdtemp(prefix="scale-", dir=options.scratch))
    try:
        if "layers" in options.sections:
            series += by_layers(options, scratch / "layers")
        if "files" in options.sections:
            series += by_files(options, scratch / "files")
        if "packages" in options.sections:
            series += by_packages(options, scratch / "packages")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    host = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    host += f", load {os.getloadavg()[0]:.0f}"
    text = markdown(series, host=host, command="python3 benchmarks/scale.py --record", rounds=options.rounds)
    print(text, end="")
    if options.record:
        results = HERE / "RESULTS.md"
        old = results.read_text() if results.exists() else "# Results\n"
        results.write_text(replace_section(old, "scale", text))
        for axis in dict.fromkeys(each.axis for each in series):
            drawn = [each for each in series if each.axis == axis]
            (HERE / f"scale-{axis.replace(' ', '-')}.svg").write_text(chart(drawn))
    return 0


def by_layers(options: argparse.Namespace, scratch: Path) -> list[Series]:
    """Planning, and finding nothing changed, for environments of ever more layers."""
    planning = Series("plan, nothing built", "layers")
    unchanged = Series("build, nothing changed", "layers")
    pure = Series("the planner alone", "layers")
    for count in LAYERS:
        _say(f"{count} layers")
        project, home = scratch / f"{count}", scratch / f"{count}-home"
        project.mkdir(parents=True)
        steps = "".join(f"  - make {number}\n" for number in range(count - 1))
        (project / "Sandboxfile").write_text(f"name: many\nbase: scratch\nrun:\n{steps}")
        build_in_memory(project, home, {f"make {number}": "done\n" for number in range(count - 1)})
        planning.add(count, _cpu(options, scratch / "empty", project, "plan"))
        unchanged.add(count, _cpu(options, home, project, "build", expect="nothing changed"))
        pure.add(count, _planner(options, project))
    return [planning, unchanged, pure]


def by_files(options: argparse.Namespace, scratch: Path) -> list[Series]:
    """The same for a build context of ever more files."""
    planning = Series("plan, digests known", "context files")
    unchanged = Series("build, nothing changed", "context files")
    for count in FILES:
        _say(f"{count} files")
        project, home = scratch / f"{count}", scratch / f"{count}-home"
        for number in range(count):
            directory = project / "src" / f"{number // 100}"
            if number % 100 == 0:
                directory.mkdir(parents=True)
            (directory / f"{number}.txt").write_text(f"{number}\n")
        (project / "Sandboxfile").write_text("name: many\nbase: scratch\nfiles:\n  - {from: src, to: /src}\n")
        time.sleep(SETTLE)
        build_in_memory(project, home, {})
        planning.add(count, _cpu(options, home, project, "plan"))
        unchanged.add(count, _cpu(options, home, project, "build", expect="nothing changed"))
        shutil.rmtree(home)
        shutil.rmtree(project)
    return [planning, unchanged]


def by_packages(options: argparse.Namespace, scratch: Path) -> list[Series]:
    """One more apt package for environments of ever more, already locked and in the store; and solving it."""
    adding = Series("one more apt package, locked and fetched", "packages")
    solving = Series("solving and locking it", "packages")
    home = scratch / "home"
    scratch.mkdir(parents=True)
    names: list[str] = []
    for count in PACKAGES:
        _say(f"{count} packages")
        project = scratch / f"{count}"
        project.mkdir()
        if not names:
            _write_packages(project, [])
            _run(options, home, project, "build")
            names = small_packages(home)
        if count + 1 > len(names):
            raise SystemExit(f"the archive has only {len(names)} packages that need no others")
        _write_packages(project, names[:count])
        _run(options, home, project, "build")
        _write_packages(project, names[: count + 1])
        lock = project / "sandboxfile.lock"
        before = lock.read_bytes()
        times = []
        for _ in range(options.rounds):
            lock.write_bytes(before)
            times.append(_run(options, home, project, "lock"))
        solving.add(count, min(times))
        _run(options, home, project, "build")
        again = [_run(options, home, project, "build", "--force", "apt-2") for _ in range(options.rounds)]
        adding.add(count, min(again))
    emptying = [options.sandboxfile, "--home", home, "cache", "gc", "--all", "-q"]
    subprocess.run(emptying, check=False, capture_output=True)
    return [adding, solving]


def small_packages(home: Path) -> list[str]:
    """Packages that need nothing but the C library, the smallest first, from the indexes in a store."""
    found: dict[str, int] = {}
    for index in sorted((home / "indexes").rglob("*Packages")):
        for paragraph in index.read_text("utf-8", "replace").split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " "
            )
            needs = {word.split()[0] for word in fields.get("Depends", "").split(",") if word.strip()}
            alone = needs <= {"libc6"} and not fields.keys() & {
                "Pre-Depends",
                "Conflicts",
                "Breaks",
                "Essential",
            }
            if alone and int(fields.get("Size", "0")) and int(fields.get("Installed-Size", "0")) < 400:
                found[fields["Package"]] = int(fields["Size"])
    return sorted(found, key=lambda name: (found[name], name))


def _write_packages(project: Path, names: Sequence[str]) -> None:
    (project / "Sandboxfile").write_text(f"name: many\nbase: debian:13\napt: [{', '.join(names)}]\n")


def build_in_memory(project: Path, home: Path, script: dict[str, str]) -> None:
    """Build with the memory engine, and give each layer a directory: what `nothing changed` looks at."""
    from sandboxfile.api import AsyncClient
    from sandboxfile.engines.memory.engine import MemoryEngine
    from sandboxfile.store.store import Store

    async def work() -> None:
        client = AsyncClient(home=home, engine="memory")
        client._opened = MemoryEngine(script=dict(script))
        async with client:
            built = await client.build(client.load(directory=project))
            layers = client.snapshot(built.slug).layers
        with Store.open(home) as store:
            for key in layers:
                place = store.layers / key.partition(":")[2]
                place.mkdir(exist_ok=True)
                (place / "layer.json").write_text("{}")

    asyncio.run(work())


def _planner(options: argparse.Namespace, project: Path) -> float:
    """CPU seconds of the pure planner and the reconciliation."""
    from sandboxfile.build.project import load_project
    from sandboxfile.plan.planner import plan
    from sandboxfile.plan.reconcile import reconcile

    loaded = load_project(project / "Sandboxfile")
    lock = loaded.read_lock()
    assert lock is not None
    best = float("inf")
    for _ in range(options.rounds):
        started = time.process_time()
        reconcile(plan(loaded.sandboxfile, lock, ()), have=(), blobs=(), passed=())
        best = min(best, time.process_time() - started)
    return best


def _cpu(options: argparse.Namespace, home: Path, project: Path, *words: str, expect: str = "") -> float:
    """CPU seconds of a whole process, the least of several: what the machine does beside it adds to some."""
    argv = ("--engine", "memory", *words)
    _run(options, home, project, *argv, expect=expect)
    return min(_run(options, home, project, *argv, expect=expect) for _ in range(options.rounds))


def _run(options: argparse.Namespace, home: Path, project: Path, *words: str, expect: str = "") -> float:
    """Run the program; CPU seconds of it and all it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [options.sandboxfile, "--home", home, "-C", project, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or expect not in done.stderr:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the least counts")
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=("layers", "files", "packages"),
        default=["layers", "files", "packages"],
    )
    parser.add_argument("--record", action="store_true", help="write RESULTS.md and the pictures")
    parser.add_argument("--scratch", default=None, help="where to work (default: the temporary directory)")
    parser.add_argument("--sandboxfile", type=Path, default=_console_script(), help="the program to measure")
    return parser.parse_args()


def _console_script() -> Path:
    beside = HERE.parent / ".venv" / "bin" / "sandboxfile"
    return beside if beside.exists() else Path(shutil.which("sandboxfile") or beside)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
