"""Time the start of sandboxes beside `docker run`, `podman run` and a bare `crun run`, in the same run.

    python3 benchmarks/boot.py [--short] [--sections NAME ...] [--rounds N] [--as root user] [--record]
                               [--sizes 100MB 1GB 5GB] [--no-peers] [--scratch DIR]

Installs sandboxfile into a virtual environment of its own, measures it as root and as an ordinary user made
for the purpose, and writes results/boot-<time>.md and .json beside this file; with --record, also the section
"boot" of RESULTS.md. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boot_peers import crun, docker, missing, podman, timed
from boot_table import markdown
from build import _delete
from job import bootstrap

HERE = Path(__file__).resolve().parent
SECTIONS = ("latency", "trace", "layers", "size", "process", "rate", "volume", "memory")
SHORT = {
    "rounds": 5,
    "sizes": ["1MB", "5MB"],
    "volume_sizes": ["1MB"],
    "layers": [1, 3],
    "concurrency": [1, 2],
    "idle": 10,
}
USER = "sandboxfile-bench"
_IDS = "3000000-3065535"
_PYTHON = "/usr/bin/python3"  # one that an ordinary user can run too


def main() -> int:
    """Run the benchmark. 0; 1 when something could not be measured; 2 on wrong usage."""
    options = _arguments()
    began = (
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, load {os.getloadavg()[0]:.1f} at the start"
    )
    if os.geteuid() != 0:
        print("the peers and the ordinary user need root", file=sys.stderr)
        return 2
    # Whoever ends us early still gets everything cleaned up: the daemon, the user, the directories.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    scratch = Path(tempfile.mkdtemp(prefix="boot-", dir=options.scratch))
    scratch.chmod(0o755)
    results: dict[str, dict[str, Any]] = {}
    peers: dict[str, list[float]] = {}
    failures: list[str] = []
    try:
        python = _install(scratch / "venv", options.source)
        if options.peers:
            peers = _peers(scratch, options.rounds, failures)
        for who in options.who:
            _say(f"sandboxfile as {who}")
            try:
                with _home(who, scratch) as home:
                    results[who] = _measure(python, home, who, options)
            except (OSError, subprocess.CalledProcessError) as problem:
                failures.append(f"{who}: {problem}")
            finally:
                _delete(scratch / who)  # gigabytes, which the next one needs
    finally:
        _delete(scratch)
    _report(began, results, peers, failures, options)
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    add("--rounds", type=int, default=100, help="boots of each measurement (default: %(default)s)")
    add("--as", dest="who", nargs="+", choices=("root", "user"), default=["root", "user"], help="as whom")
    add("--sizes", nargs="+", default=["100MB", "1GB", "5GB"], metavar="SIZE", help="of snapshots")
    add("--volume-sizes", nargs="+", default=["1MB", "100MB", "1GB"], metavar="SIZE", help="of volumes")
    add("--layers", nargs="+", type=int, default=[1, 20, 60], metavar="N", help="depths of stacks")
    add("--concurrency", nargs="+", type=int, default=[1, 2, 8], metavar="N", help="boots at once")
    add("--idle", type=int, default=500, metavar="N", help="idle sandboxes (default: %(default)s)")
    add("--no-peers", dest="peers", action="store_false", help="without docker, podman and crun")
    add("--short", action="store_true", help="a few boots of small things, to see that everything works")
    add("--record", action="store_true", help="write the section `boot` of RESULTS.md too")
    add("--source", type=Path, default=HERE.parent, help="the sandboxfile to measure (default: this one)")
    add("--scratch", default="/var/tmp", help="where to work; a short path (default: %(default)s)")
    if "--short" in sys.argv:
        parser.set_defaults(**SHORT)
    return parser.parse_args()


def _install(venv: Path, source: Path) -> Path:
    """A virtual environment with a sandboxfile as its users have it; its Python."""
    _say("installing sandboxfile")
    subprocess.run([_PYTHON, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", source], check=True, stdout=sys.stderr)
    return python


def _peers(scratch: Path, rounds: int, failures: list[str]) -> dict[str, list[float]]:
    base = scratch / "base.tar"
    _say("bootstrapping the peers' base image")
    bootstrap(base)
    found: dict[str, list[float]] = {}
    for name, command in (("docker", docker), ("podman", podman)):
        if missing(name):
            failures.append(f"{name} is not installed")
            continue
        _say(f"{name} run")
        try:
            with command(scratch / name, base) as argv:
                timed(argv, 2)
                found[f"{name} run"] = timed(argv, rounds)
        except Exception as problem:
            failures.append(f"{name}: {problem}")
    _say("crun run")
    try:
        found["crun run, bare"] = crun(scratch / "crun", base, rounds)
    except Exception as problem:
        failures.append(f"crun: {problem}")
    return found


@contextmanager
def _home(who: str, scratch: Path) -> Iterator[Path]:
    """A directory of the user who measures; the ordinary user exists as long as it does."""
    home = scratch / who
    if who == "root":
        home.mkdir()
        yield home
        return
    subprocess.run(["useradd", "--create-home", "--home-dir", home, USER], check=True)
    try:
        ranges = ["--add-subuids", _IDS, "--add-subgids", _IDS]
        subprocess.run(["usermod", *ranges, USER], check=True)
        home.chmod(0o700)
        yield home
    finally:
        subprocess.run(["userdel", USER], check=False)


def _measure(python: Path, home: Path, who: str, options: argparse.Namespace) -> dict[str, Any]:
    wanted = {
        "home": str(home / "store"),
        "rounds": options.rounds,
        "sections": options.sections,
        "layers": options.layers,
        "sizes": options.sizes,
        "volume_sizes": options.volume_sizes,
        "concurrency": options.concurrency,
        "idle": options.idle,
    }
    argv: list[str | Path] = [python, "-", json.dumps(wanted)]
    environment = dict(os.environ)
    # Users have their imports compiled; where that is switched off, it is not what is measured here.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if who == "user":
        argv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *argv]
        environment |= {"HOME": str(home), "USER": USER, "LOGNAME": USER, "XDG_RUNTIME_DIR": ""}
        environment.pop("SANDBOXFILE_HOME", None)
    script = (HERE / "boot_measure.py").read_text()  # by pipe: the user may not reach this directory
    done = subprocess.run(
        argv, check=True, cwd=home, env=environment, input=script, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _report(
    began: str,
    results: dict[str, dict[str, Any]],
    peers: dict[str, list[float]],
    failures: list[str],
    options: argparse.Namespace,
) -> None:
    host = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    text = f"`python3 {shlex.join(['benchmarks/boot.py', *sys.argv[1:]])}`, {began}: "
    text += f"{options.rounds} boots each on {host}.\n\n"
    text += markdown(results, peers) + "".join(f"- FAILED {failure}\n" for failure in failures)
    directory = HERE / "results"
    directory.mkdir(exist_ok=True)
    stem = time.strftime("boot-%Y%m%dT%H%M%S")
    (directory / f"{stem}.md").write_text(text)
    if options.record:
        _record(HERE / "RESULTS.md", "boot", text)
    document = {"host": host, "began": began, "results": results, "peers": peers, "failures": failures}
    (directory / f"{stem}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(text, end="")


def _record(page: Path, section: str, text: str) -> None:
    """Put a text between the section's two marks; a page or section that is not there is begun."""
    begin, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->\n"
    old = page.read_text() if page.exists() else "# Results\n"
    if begin not in old:
        old += f"\n## {section}\n\n{begin}{end}"
    before, _, rest = old.partition(begin)
    page.write_text(before + begin + text + end + rest.partition(end)[2])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
