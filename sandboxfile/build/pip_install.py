"""Installing a pip layer's wheels: fetched and checked outside, installed by uv inside, no network.

Byte code is compiled for the files of this layer only, before they are installed (`build.bytecode`); that is
why it is not left to uv, whose option compiles the whole directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sandboxfile.build.runner import Log, how_it_ended
from sandboxfile.build.staging import staged
from sandboxfile.core.environment import build_environment
from sandboxfile.core.layer import PipLayer
from sandboxfile.engine.base import Command, Mount, Workspace
from sandboxfile.errors import StepFailed

WHEELS = "/run/sandboxfile/wheels"
BYTECODE = "/run/sandboxfile/bytecode"
UV = "/run/sandboxfile/uv"

_FINISH = '''\
"""Make the freshly installed distributions the same everywhere, and put their byte code in place."""
import csv, importlib.metadata, importlib.util, os, re, sys, tarfile

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

compiled, wanted = sys.argv[1], {canonical(name) for name in sys.argv[2:]}
sources = set()
sites = set()
for dist in importlib.metadata.distributions():
    if canonical(dist.metadata["Name"] or "") not in wanted:
        continue
    wanted.discard(canonical(dist.metadata["Name"]))
    info = str(dist._path)
    site = os.path.dirname(info)
    sites.add(site)
    record = os.path.join(info, "RECORD")
    with open(record, newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    kept = []
    for row in rows:
        if row[0].endswith(".dist-info/uv_cache.json"):
            os.unlink(os.path.join(site, row[0]))
            continue
        kept.append(row)
        if row[0].endswith(".py"):
            sources.add(os.path.normpath(os.path.join(site, row[0])))
    with open(record, "w", newline="") as file:
        csv.writer(file, lineterminator="\\n").writerows(sorted(kept))
if wanted:
    sys.exit("not installed: " + ", ".join(sorted(wanted)))

def place(site, path, content):
    place = os.path.join(site, path)
    source = importlib.util.source_from_cache(place)
    if source not in sources:
        return
    with open(source, "rb") as file:
        if importlib.util.source_hash(file.read()) != content[8:16]:
            sys.exit(source + " is not what was compiled")
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as file:
        file.write(content)

for name in sorted(os.listdir(compiled)):
    with tarfile.open(os.path.join(compiled, name), "r:") as tar:
        for member in tar:
            for site in sites:
                place(site, member.name, tar.extractfile(member).read())
'''


def requirements(layer: PipLayer) -> str:
    """A requirements file that names exactly the layer's wheels, with their hashes."""
    return "".join(f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in layer.wheels)


def commands(layer: PipLayer) -> tuple[tuple[str, ...], ...]:
    """The commands of a layer, in order."""
    if layer.target == "system":
        place: tuple[str, ...] = ("--python", "/usr/bin/python3", "--system", "--break-system-packages")
        python = "/usr/bin/python3"
        before: tuple[tuple[str, ...], ...] = ()
    else:
        python = f"{layer.target}/bin/python"
        place = ("--python", python)
        make = f"test -x {layer.target}/bin/python || {UV} venv --python /usr/bin/python3 {layer.target}"
        before = (("/bin/sh", "-ec", make),)
    names = tuple(wheel.name for wheel in layer.wheels)
    return (
        *before,
        (
            UV, "pip", "install", *place, "--offline", "--no-index", "--no-deps", "--no-cache",
            "--link-mode", "copy", "--find-links", WHEELS, "--require-hashes", "-r",
            f"{WHEELS}/requirements.txt",
        ),
        (python, "-X", "utf8", "-I", f"{WHEELS}/finish.py", BYTECODE, *names),
    )  # fmt: skip


async def install(
    layer: PipLayer,
    workspace: Workspace,
    *,
    bytecode: Mapping[str, Path],
    blobs: Mapping[str, Path],
    uv: Path,
    staging: Path,
    log: Log,
    name: str,
) -> None:
    """Install the layer's wheels into its target.

    bytecode: tars of compiled wheels by the wheel's file name
    uv:       the program's path on this machine
    Raises StepFailed with the installer's last words.
    """
    env = build_environment(
        layer.epoch,
        {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"},
    )
    files: dict[str, Path | bytes] = {wheel.filename: blobs[wheel.sha256] for wheel in layer.wheels}
    files["requirements.txt"] = requirements(layer).encode()
    files["finish.py"] = _FINISH.encode()
    with staged(staging, files) as wheels, staged(staging, bytecode) as compiled:
        mounts = (Mount(wheels, WHEELS), Mount(compiled, BYTECODE), Mount(uv, UV))
        for argv in commands(layer):
            log.note("$ " + " ".join(argv))
            completed = await workspace.execute(Command(argv, env=env, mounts=mounts), log.output)
            if completed.exit_code != 0:
                raise StepFailed(
                    f"installing the packages of `{name}` failed: "
                    f"{argv[0].rpartition('/')[2]} {how_it_ended(completed, None)}",
                    layer=name,
                    exit_code=completed.exit_code,
                    details=log.tail(),
                )
