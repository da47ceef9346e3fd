"""A virtual machine of the tests: its disk, made from the Sandboxfile beside this file, and a boot of it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DISK = "12G"
RESULTS = 64 << 20
MEMORY = "2560"
_LEFT_OUT = ("proc", "sys", "dev", "run", "tmp")


def sandboxfile(*words: str, stdout: int | io.BufferedWriter = subprocess.PIPE) -> str:
    """Run the program of this repository; what it said on stdout."""
    done = subprocess.run([sys.executable, "-m", "sandboxfile", *words], stdout=stdout, check=True, cwd=ROOT)
    return "" if done.stdout is None else done.stdout.decode().strip()


def build(name: str, cache: Path) -> str:
    """The slug of one of the Sandboxfiles here. The lock stays in the cache: it ages with the archive."""
    directory = cache / name
    directory.mkdir(parents=True, exist_ok=True)
    source = HERE / "Sandboxfile" if name == "vm" else HERE / name / "Sandboxfile"
    shutil.copyfile(source, directory / "Sandboxfile")
    return sandboxfile("-C", str(directory), "build").splitlines()[-1]


def archive(slug: str, target: Path) -> None:
    """The tar of a snapshot, as a sandbox of it sees it."""
    excluded = [f"--exclude=./{name}" for name in _LEFT_OUT]
    beside = target.with_suffix(".part")
    with beside.open("wb") as stream:
        tar = ("tar", "--one-file-system", "--sort=name", *excluded, "-C", "/", "-cf", "-", ".")
        sandboxfile("run", slug, "--", *tar, stdout=stream)
    beside.rename(target)


def machine(cache: Path) -> Path:
    """The directory with `disk`, `vmlinuz`, `initrd` and `base.tar`, made when it is not there."""
    slug, base = build("vm", cache), build("base", cache)
    recipe = hashlib.sha256(f"{_DISK}{DISK}".encode()).hexdigest()[:8]
    made = cache / "machines" / f"{slug}-{base}-{recipe}"
    if made.is_dir():
        return made
    shutil.rmtree(cache / "machines", ignore_errors=True)
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        beside = Path(scratch) / "machine"
        beside.mkdir()
        archive(base, beside / "base.tar")
        archive(slug, beside / "root.tar")
        as_root(["sh", "-euc", _DISK, "sh", str(beside), DISK])
        beside.rename(made)
    return made


_DISK = """
cd "$1"
mkdir tree
tar -xf root.tar -C tree --numeric-owner
rm root.tar
for name in proc sys dev run tmp; do mkdir -p tree/$name; done
chmod 1777 tree/tmp
cp -L tree/vmlinuz vmlinuz
cp -L tree/initrd.img initrd
printf 'LABEL=trial / ext4 defaults 0 1\n' >tree/etc/fstab
# What systemd does once after an installation: this machine starts as one that has done it.
tr -d - </proc/sys/kernel/random/uuid >tree/etc/machine-id
touch tree/etc/.updated tree/var/.updated
PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -L trial -d tree disk "$2"
rm -rf tree
"""


def as_root(argv: list[str]) -> None:
    """Run something with the ids of a whole system: an ordinary user's are of a user namespace."""
    if os.geteuid() != 0:
        argv = ["unshare", "--user", "--map-auto", "--map-root-user", *argv]
    subprocess.run(argv, check=True)


def parcel(target: Path, base: Path) -> None:
    """The disk that brings the project in: a tar, read from the device."""
    with tempfile.TemporaryDirectory() as scratch:
        uv = subprocess.run(
            [sys.executable, "-c", "import uv; print(uv.find_uv_bin())"], stdout=subprocess.PIPE, check=True
        )
        program = uv.stdout.decode().strip()
        subprocess.run([program, "build", "--quiet", "--wheel", "--out-dir", scratch, ROOT], check=True)
        with tarfile.open(target, "w") as tar:
            for wheel in Path(scratch).glob("*.whl"):
                tar.add(wheel, wheel.name)
            tar.add(base, "base.tar")
            tar.add(ROOT / "pyproject.toml", "pyproject.toml")
            tar.add(ROOT / "tests", "tests", filter=lambda item: None if "__pycache__" in item.name else item)
    with target.open("ab") as stream:
        # A device has whole sectors.
        stream.write(b"\0" * (-target.stat().st_size % 4096))


def acceleration() -> list[str]:
    """How the machine runs: by the processor where that can be, else translated."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and any(f" {flag} " in flags for flag in ("vmx", "svm")):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]


class Machine:
    """One boot. `wait` reads the console; leaving the block is a loss of power."""

    def __init__(
        self, made: Path, disk: Path, trial: Path, results: Path, phase: str, suites: str, log: Path
    ) -> None:
        drives = (("disk", disk), ("trial", trial), ("results", results))
        options = [
            "console=ttyS0",
            "root=LABEL=trial",
            "rw",
            "panic=-1",
            f"trial.phase={phase}",
            f"trial.suites={suites}",
        ]
        argv = [
            *("nice", "-n", "0", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-machine", "q35", *acceleration(), "-smp", "2", "-m", MEMORY),
            *("-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci"),
            *(
                "-kernel",
                str(made / "vmlinuz"),
                "-initrd",
                str(made / "initrd"),
                "-append",
                " ".join(options),
            ),
        ]
        for name, path in drives:
            argv += ["-drive", f"if=none,id={name},format=raw,file={path}"]
            argv += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def lines(self) -> Iterator[str]:
        """What the console says, until the machine is off."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.write(line)
            self._log.flush()
            yield line.decode("utf-8", "replace").strip()

    def wait(self, until: str, tell: Callable[[str], None], deadline: float) -> bool:
        """Pass on what the trial says (lines with `trial: `) until it says `until`; whether it did."""
        for line in self.lines():
            _, mark, said = line.partition("trial: ")
            if mark:
                tell(said)
            if said == until:
                return True
            if time.monotonic() > deadline:
                break
        return False


def read_results(disk: Path) -> dict[str, bytes]:
    """The files that the machine wrote to its disk of results."""
    found = {}
    with tarfile.open(disk) as tar:
        for item in tar:
            file = tar.extractfile(item)
            if file is not None:
                found[item.name.removeprefix("./")] = file.read()
    return found
