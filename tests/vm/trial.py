"""What scripts/test-vm does: makes the machine, boots it, takes its power away, boots it again."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from machine import RESULTS, Machine, machine, parcel, read_results

SUITES = ",".join(
    (
        *("root:doctor", "root:promises", "root:limits", "root:freeze"),
        *(
            "delegated:promises",
            "delegated:limits",
            "login:doctor",
            "login:few",
            "plain:doctor",
            "plain:promises",
        ),
    )
)
_MINUTES = {"first": 60, "second": 120}


def tell(text: str) -> None:
    """Say something, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    """Run everything; 0 when all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="where the machine is kept")
    parser.add_argument("--results", type=Path, help="where the reports are put")
    parser.add_argument(
        "--suites", default=SUITES, help="pairs `user:suite`, as tests/vm/inside.py knows them"
    )
    args = parser.parse_args()
    # The machine ends with this program, also when that is told to.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    cache: Path = args.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    made = machine(cache)
    tell(f"the machine is made ({time.monotonic() - began:.0f} s)")
    output: Path = args.results or cache / "results"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    faults: list[str] = []

    def heard(text: str) -> None:
        tell(text)
        if any(word in text for word in ("failed", "broken: ", " failure: ", " error: ", "no report")):
            faults.append(text)

    with tempfile.TemporaryDirectory(dir=cache) as directory:
        scratch = Path(directory)
        disk, trial, results = scratch / "disk", scratch / "trial", scratch / "results"
        # The disk is mostly holes, and stays so.
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", made / "disk", disk], check=True)
        parcel(trial, made / "base.tar")
        for phase, until in (("first", "ready"), ("second", "done")):
            with results.open("wb") as stream:
                stream.truncate(RESULTS)
            booted = time.monotonic()
            with Machine(
                made, disk, trial, results, phase, args.suites, output / f"console-{phase}"
            ) as running:
                if not running.wait(until, heard, booted + 60 * _MINUTES[phase]):
                    faults.append(f"the boot for `{phase}` did not come to its end")
            tell(f"power off after {time.monotonic() - booted:.0f} s")
        try:
            for name, content in read_results(results).items():
                (output / name).write_bytes(content)
        except (OSError, tarfile.TarError) as error:
            faults.append(f"no results: {error}")
    for fault in faults:
        tell(f"fault: {fault}")
    tell(f"{len(faults)} faults in {time.monotonic() - began:.0f} s; reports in {output}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
