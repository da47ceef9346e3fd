"""Installing a pip layer's wheels: fetched and checked outside, installed by uv inside, no network.

Byte code is compiled at build time, for the files of this layer only, and marked `unchecked-hash` so that
it names no time (PEP 552); that is why it is not left to uv, whose option compiles the whole directory.
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
UV = "/run/sandboxfile/uv"

_FINISH = '''\
"""Make the freshly installed distributions the same everywhere, and compile them."""
import base64, compileall, concurrent.futures, csv, hashlib, importlib.metadata, os, re, sys
from py_compile import PycInvalidationMode

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

wanted = {canonical(name) for name in sys.argv[1:]}
sources = []
for dist in importlib.metadata.distributions():
    if canonical(dist.metadata["Name"] or "") not in wanted:
        continue
    wanted.discard(canonical(dist.metadata["Name"]))
    info = str(dist._path)
    record = os.path.join(info, "RECORD")
    with open(record, newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    kept = []
    for row in rows:
        if row[0].endswith(".dist-info/uv_cache.json"):
            os.unlink(os.path.join(os.path.dirname(info), row[0]))
            continue
        kept.append(row)
        if row[0].endswith(".py"):
            sources.append(os.path.normpath(os.path.join(os.path.dirname(info), row[0])))
    with open(record, "w", newline="") as file:
        csv.writer(file, lineterminator="\\n").writerows(sorted(kept))
if wanted:
    sys.exit("not installed: " + ", ".join(sorted(wanted)))

def compile_one(path):
    # A file that is no valid Python (a template, a test of syntax errors) is simply left uncompiled.
    compileall.compile_file(path, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)

with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
    for _ in pool.map(compile_one, sorted(sources), chunksize=32):
        pass
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
        (python, "-X", "utf8", "-I", f"{WHEELS}/finish.py", *names),
    )  # fmt: skip


async def install(
    layer: PipLayer,
    workspace: Workspace,
    *,
    blobs: Mapping[str, Path],
    uv: Path,
    staging: Path,
    log: Log,
    name: str,
) -> None:
    """Install the layer's wheels into its target. `uv` is the program's path on this machine.

    Raises StepFailed with the installer's last words.
    """
    env = build_environment(
        layer.epoch,
        {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"},
    )
    files: dict[str, Path | bytes] = {wheel.filename: blobs[wheel.sha256] for wheel in layer.wheels}
    files["requirements.txt"] = requirements(layer).encode()
    files["finish.py"] = _FINISH.encode()
    with staged(staging, files) as wheels:
        mounts = (Mount(wheels, WHEELS), Mount(uv, UV))
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
