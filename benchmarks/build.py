"""Time builds and boots beside BuildKit and Buildah, on the same job, in the same run.

    python3 benchmarks/build.py [--rounds N] [--jobs JOB ...] [--only TOOL ...] [--install] [--record]
                                [--trace] [--sandboxfile PATH] [--scratch DIR]

Writes results/<time>.md and .json beside this file and prints the tables. With --record, writes the section
"build" of RESULTS.md too; with --trace, a picture of one cold build of ours, trace-build.svg. The peers need
root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from job import JOBS, bootstrap
from scale_table import replace_section
from table import ROWS, costs, markdown, medians
from tools import BenchmarkError, Buildah, BuildKit, Cost, Sandboxfile, Tool
from trace_build import trace

HERE = Path(__file__).resolve().parent
PEER_PACKAGES = ("docker.io", "buildah", "podman", "runc", "mmdebstrap")


def main() -> int:
    """Run the benchmark. 0, or 1 when a tool failed (the others are still reported), 2 on wrong usage."""
    options = _arguments()
    if options.install:
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *PEER_PACKAGES],
            check=True,
            stdout=sys.stderr,
        )
    tools: dict[str, Callable[[], Tool]] = {
        "sandboxfile": lambda: Sandboxfile(options.sandboxfile),
        "buildkit": BuildKit,
        "buildkit-mounts": lambda: BuildKit(mounts=True),
        "buildah": Buildah,
    }
    chosen = options.only or list(tools)
    if set(chosen) - {"sandboxfile"} and os.geteuid() != 0:
        print("the peers need root; use --only sandboxfile", file=sys.stderr)
        return 2
    # A stop by signal takes the same way out as a failure, so that no daemon stays.
    signal.signal(signal.SIGTERM, _stop)
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=options.scratch))
    load = os.getloadavg()[0]
    runs = {job: Run() for job in options.jobs}
    versions: dict[str, str] = {}
    try:
        base = scratch / "base.tar"
        if set(chosen) - {"sandboxfile"}:
            _say("bootstrapping the peers' base image")
            bootstrap(base)
        if options.trace:
            _say("tracing one cold build")
            trace(options.sandboxfile, scratch / "trace", HERE / "trace-build.svg")
        for round_number in range(1, options.rounds + 1):
            for job, run in runs.items():
                for name in chosen:
                    tool = tools[name]()
                    _say(f"round {round_number} of {options.rounds}, {job}: {tool.name}")
                    directory = scratch / f"{name[0]}{name[-1]}-{job}-{round_number}"
                    directory.mkdir()
                    try:
                        versions[tool.name] = tool.version()
                        tool.prepare(directory, base)
                        for row, cost in tool.measure(JOBS[job]):
                            run.add(tool.name, row, cost)
                            if row != "run":
                                _say(f"  {ROWS[row]}: {cost.seconds:.2f} s")
                    except (BenchmarkError, OSError, subprocess.CalledProcessError) as problem:
                        run.failures.append(f"{tool.name}: {problem}")
                        _say(f"  failed: {problem}")
                    finally:
                        tool.close()
    finally:
        # Deleting between rounds would slow the next one: ext4 avoids inodes that were freed a moment ago.
        _delete(scratch)
    text = _report(runs, versions, options, load)
    print(text, end="")
    if options.record:
        results = HERE / "RESULTS.md"
        page = results.read_text() if results.exists() else ""
        results.write_text(replace_section(page, "build", text))
    return 1 if any(run.failures for run in runs.values()) else 0


@dataclass
class Run:
    """The samples of one job: what was measured, by tool and row."""

    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    processor: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    memory: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, tool: str, row: str, cost: Cost) -> None:
        """Keep a sample."""
        self.seconds.setdefault(tool, {}).setdefault(row, []).append(cost.seconds)
        self.processor.setdefault(tool, {}).setdefault(row, []).append(cost.processor)
        self.memory.setdefault(tool, {}).setdefault(row, []).append(cost.memory / 1e6)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, each with every tool (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("sandboxfile", "buildkit", "buildkit-mounts", "buildah"),
        help="these tools",
    )
    parser.add_argument(
        "--jobs", nargs="+", choices=tuple(JOBS), default=["seed"], help="environments (default: seed)"
    )
    parser.add_argument("--record", action="store_true", help="write the section `build` of RESULTS.md too")
    parser.add_argument("--trace", action="store_true", help="draw one cold build")
    parser.add_argument("--install", action="store_true", help="install the peers with apt-get first")
    parser.add_argument(
        "--sandboxfile", type=Path, default=_console_script(), help="console script to measure"
    )
    parser.add_argument(
        "--scratch", default="/var/tmp", help="where to work; a short path (default: %(default)s)"
    )
    return parser.parse_args()


def _console_script() -> Path:
    beside = HERE.parent / ".venv" / "bin" / "sandboxfile"
    return beside if beside.exists() else Path(shutil.which("sandboxfile") or beside)


def _report(runs: dict[str, Run], versions: dict[str, str], options: argparse.Namespace, load: float) -> str:
    host = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    command = f"python3 benchmarks/build.py --rounds {options.rounds} --jobs {' '.join(options.jobs)}"
    day = time.strftime("%Y-%m-%d", time.gmtime())
    head = f"Medians of {options.rounds} rounds on {host}; load average {load:.1f} at the start, {day}"
    parts = [f"{head}. `{command}`\n"]
    for job, run in runs.items():
        apt, pip = len(JOBS[job].apt), len(JOBS[job].pip)
        parts += [f"### {job}: {apt} apt and {pip} pip packages asked for\n", markdown(run.seconds)]
        parts += ["Of the whole machine, others included:\n", costs(run.processor, run.memory)]
        parts += [f"- FAILED {failure}" for failure in run.failures]
    parts.append("".join(f"- {tool}: {version}\n" for tool, version in versions.items()))
    if (HERE / "trace-build.svg").exists():
        parts.append("![one cold build](trace-build.svg)\n")
    text = "\n".join(parts)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    stem = time.strftime("%Y%m%dT%H%M%S")
    (results / f"{stem}.md").write_text(text)
    document = {
        "host": host,
        "rounds": options.rounds,
        "versions": versions,
        "jobs": {job: {**asdict(run), "medians": medians(run.seconds)} for job, run in runs.items()},
    }
    (results / f"{stem}.json").write_text(json.dumps(document, indent=2) + "\n")
    return text


def _delete(scratch: Path) -> None:
    # Podman leaves its storage mounted on itself, and may still be cleaning up behind its last container.
    for _ in range(5):
        mounted = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
        for point in reversed([point for point in mounted if point.startswith(f"{scratch}/")]):
            subprocess.run(["umount", "--lazy", point], check=False)
        shutil.rmtree(scratch, ignore_errors=True)
        if scratch.exists() and os.geteuid() != 0:
            # An ordinary user's layers belong to subordinate ids, which only a namespace may remove.
            subprocess.run(
                ["unshare", "--user", "--map-auto", "--map-root-user", "rm", "-rf", scratch], check=False
            )
        if not scratch.exists():
            return
        time.sleep(1)
    _say(f"could not remove all of {scratch}")


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
