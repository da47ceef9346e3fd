"""Byte code of wheels: compiled from the wheel itself, before it is installed, and kept.

Compiling takes longer than installing. From the wheel it can be done as soon as the interpreter is unpacked,
beside dpkg's configuration of everything else; and a wheel is compiled once for each interpreter and target,
whatever environments it is installed in. What is compiled is marked `unchecked-hash` (PEP 552), so that it
names no time; whoever installs it compares the hash of the source that it holds.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandboxfile.build.runner import Log, how_it_ended
from sandboxfile.build.staging import staged
from sandboxfile.core.digest import digest_of
from sandboxfile.core.environment import build_environment
from sandboxfile.core.layer import AptLayer, DebianBase, PipLayer, WheelPin
from sandboxfile.engine.base import Command, Mount, Workspace
from sandboxfile.errors import StepFailed
from sandboxfile.plan.model import Plan, PlannedLayer
from sandboxfile.store.store import Store

KIND = "bytecode"
_TAG = "sandboxfile.bytecode/v1"
_PLACE = "/run/sandboxfile/compile"

_COMPILE = '''\
"""Compile the modules of wheels; a tar of <wheel>/<path below its site directory> on stdout."""
import concurrent.futures, importlib._bootstrap_external as external, importlib.util, io, os, re, sys
import sysconfig, tarfile, zipfile

here, site, *wheels = sys.argv[1:]
site = site or sysconfig.get_path("purelib")
opened = {}

def modules(wheel):
    """(name in the wheel, path below the site directory) of each module."""
    for name in sorted(zipfile.ZipFile(os.path.join(here, wheel)).namelist()):
        data = re.match(r"[^/]+\\.data/(purelib|platlib)/(.+)", name)
        path = data[2] if data else name
        if path.endswith(".py") and (data or ".data/" not in name):
            yield name, path

def compiled(job):
    wheel, name, path = job
    if wheel not in opened:
        opened[wheel] = zipfile.ZipFile(os.path.join(here, wheel))
    source = opened[wheel].read(name)
    try:
        code = compile(source, os.path.join(site, path), "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # A file that is no valid Python (a template, a test of syntax errors) is left uncompiled.
        return None
    return bytes(external._code_to_hash_pyc(code, importlib.util.source_hash(source), False))

os.nice(5)
jobs = [(wheel, name, path) for wheel in wheels for name, path in modules(wheel)]
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar, \\
        concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
    for (wheel, name, path), content in zip(jobs, pool.map(compiled, jobs, chunksize=32)):
        if content is not None:
            member = tarfile.TarInfo(wheel + "/" + importlib.util.cache_from_source(path))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
'''


@dataclass(frozen=True)
class Compilation:
    """The wheels of one layer, and what compiles them: `python` tells interpreters apart to the patch."""

    name: str
    layer: PipLayer
    python: str

    def key(self, wheel: WheelPin) -> str:
        """What the byte code of a wheel is kept under."""
        record = {"wheel": wheel.sha256, "python": self.python, "target": self.layer.target}
        return digest_of(_TAG, record)


def compilation(plan: Plan, layer: PlannedLayer) -> Compilation | None:
    """How the wheels of a planned layer are compiled; None when it is no pip layer."""
    definition = layer.definition
    if not isinstance(definition, PipLayer):
        return None
    package = f"{PurePosixPath(interpreter(definition)).name}-minimal"
    version = ""
    for below in plan.layers[: plan.layers.index(layer)]:
        if isinstance(below.definition, DebianBase):
            pins = below.definition.packages
        elif isinstance(below.definition, AptLayer):
            pins = below.definition.install
        else:
            continue
        version = next(
            (f"{pin.name} {pin.version} {pin.sha256}" for pin in pins if pin.name == package), version
        )
    # An interpreter that is no package of the lock is told apart by what it stands in.
    return Compilation(layer.name, definition, version or " ".join(definition.parents))


class Bytecode:
    """The compiled wheels of a store: one tar for each wheel, interpreter and target."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def kept(self, compilation: Compilation) -> Mapping[str, Path]:
        """The tars of the wheels that were compiled already, by file name of the wheel."""
        keys = {compilation.key(wheel): wheel.filename for wheel in compilation.layer.wheels}
        found: dict[str, Path] = {}
        for key, blob in self._store.index.documents(KIND, keys).items():
            if self._store.blobs.has(blob):
                self._store.blobs.touch((blob,))
                found[keys[key]] = self._store.blobs.path(blob)
        return found

    async def compile(self, compilation: Compilation, workspace: Workspace, log: Log) -> None:
        """Compile those of the wheels that are in the store and were not compiled yet, with the interpreter
        that the workspace holds. Raises StepFailed."""
        layer = compilation.layer
        kept = self.kept(compilation)
        wheels = [
            wheel
            for wheel in layer.wheels
            if wheel.filename not in kept and self._store.blobs.has(wheel.sha256)
        ]
        if not wheels:
            return
        files: dict[str, Path | bytes] = {w.filename: self._store.blobs.path(w.sha256) for w in wheels}
        files["compile.py"] = _COMPILE.encode()
        argv = (
            interpreter(layer), "-X", "utf8", "-I", "-S", "-B", f"{_PLACE}/compile.py", _PLACE, site(layer),
            *(wheel.filename for wheel in wheels),
        )  # fmt: skip
        log.note("$ " + " ".join(argv))
        with (
            staged(self._store.staging, files) as directory,
            tempfile.TemporaryFile(dir=self._store.staging) as tar,
        ):

            def take(stream: str, data: bytes) -> None:
                if stream == "stdout":
                    tar.write(data)
                else:
                    log.output(stream, data)

            env = build_environment(layer.epoch, {})
            command = Command(argv, env=env, mounts=(Mount(directory, _PLACE),))
            completed = await workspace.execute(command, take)
            if completed.exit_code != 0:
                raise StepFailed(
                    f"compiling the packages of `{compilation.name}` failed: {how_it_ended(completed, None)}",
                    layer=compilation.name,
                    exit_code=completed.exit_code,
                    details=log.tail(),
                )
            tar.seek(0)
            with tarfile.open(fileobj=tar, mode="r:") as archive:
                self._keep(compilation, wheels, archive)

    def _keep(self, compilation: Compilation, wheels: Sequence[WheelPin], archive: tarfile.TarFile) -> None:
        """Keep what was compiled, each wheel's by itself."""
        members: dict[str, list[tarfile.TarInfo]] = {wheel.filename: [] for wheel in wheels}
        for member in archive:
            members[member.name.partition("/")[0]].append(member)
        kept = {}
        for pin in wheels:
            with tempfile.TemporaryFile(dir=self._store.staging) as file:
                with tarfile.open(fileobj=file, mode="w:") as tar:
                    for member in members[pin.filename]:
                        kept_as = tarfile.TarInfo(member.name.partition("/")[2])
                        kept_as.size = member.size
                        tar.addfile(kept_as, archive.extractfile(member))
                file.seek(0)
                with self._store.blobs.writer(name=f"byte code of {pin.filename}") as writer:
                    while piece := file.read(1 << 20):
                        writer.write(piece)
            kept[compilation.key(pin)] = writer.sha256
        self._store.index.keep_documents(KIND, kept)


def interpreter(layer: PipLayer) -> str:
    """The interpreter that a layer is installed for, which is there as soon as it is unpacked."""
    major, minor = layer.python.split(".")[:2]
    return f"/usr/bin/python{major}.{minor}"


def site(layer: PipLayer) -> str:
    """Where a virtual environment has its modules; empty for the system, which knows itself."""
    if layer.target == "system":
        return ""
    major, minor = layer.python.split(".")[:2]
    return f"{layer.target}/lib/python{major}.{minor}/site-packages"
