"""Time builds and boots beside BuildKit and Buildah, on the same job, in the same run.

    python3 benchmarks/build.py [--rounds N] [--only TOOL ...] [--install] [--sandboxfile PATH]
                                [--scratch DIR]

Writes results/<time>.md and .json beside this file and prints the table. The peers need root.
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
from pathlib import Path
from types import FrameType

from job import Job, bootstrap
from table import ROWS, markdown, medians
from tools import BenchmarkError, Buildah, BuildKit, Sandboxfile, Tool

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
        "buildah": Buildah,
    }
    chosen = options.only or list(tools)
    if set(chosen) - {"sandboxfile"} and os.geteuid() != 0:
        print("the peers need root; use --only sandboxfile", file=sys.stderr)
        return 2
    # A stop by signal takes the same way out as a failure, so that no daemon stays.
    signal.signal(signal.SIGTERM, _stop)
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=options.scratch))
    samples: dict[str, dict[str, list[float]]] = {}
    failures: list[str] = []
    versions: dict[str, str] = {}
    try:
        base = scratch / "base.tar"
        if set(chosen) - {"sandboxfile"}:
            _say("bootstrapping the peers' base image")
            bootstrap(base)
        for round_number in range(1, options.rounds + 1):
            for name in chosen:
                tool = tools[name]()
                _say(f"round {round_number} of {options.rounds}: {tool.name}")
                directory = scratch / f"{name}-{round_number}"
                directory.mkdir()
                try:
                    versions[tool.name] = tool.version()
                    rows = samples.setdefault(tool.name, {})
                    tool.prepare(directory, base)
                    for row, seconds in tool.measure(Job()):
                        rows.setdefault(row, []).append(seconds)
                        if row != "run":
                            _say(f"  {ROWS[row]}: {seconds:.2f} s")
                except (BenchmarkError, OSError, subprocess.CalledProcessError) as problem:
                    failures.append(f"{tool.name}: {problem}")
                    _say(f"  failed: {problem}")
                finally:
                    tool.close()
    finally:
        # Deleting between rounds would slow the next one: ext4 avoids inodes that were freed a moment ago.
        _delete(scratch)
    _report(samples, versions, failures, options.rounds)
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, each with every tool (default: %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=("sandboxfile", "buildkit", "buildah"), help="these tools"
    )
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


def _report(
    samples: dict[str, dict[str, list[float]]], versions: dict[str, str], failures: list[str], rounds: int
) -> None:
    host = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    samples = {tool: rows for tool, rows in samples.items() if rows}
    text = f"Medians of {rounds} rounds on {host}.\n\n{markdown(samples)}\n"
    text += "".join(f"- {tool}: {version}\n" for tool, version in versions.items())
    text += "".join(f"- FAILED {failure}\n" for failure in failures)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    stem = time.strftime("%Y%m%dT%H%M%S")
    (results / f"{stem}.md").write_text(text)
    document = {
        "host": host,
        "rounds": rounds,
        "versions": versions,
        "medians": medians(samples),
        "samples": samples,
        "failures": failures,
    }
    (results / f"{stem}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(text, end="")


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
