"""Installing the packages of a lock in three ways, and comparing what comes of it, file by file.

`ours` unpacks as a build does, `dpkg` has dpkg unpack everything, and `apt` is `apt-get install` of what the
Sandboxfile asks for, from an archive of exactly the locked packages.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandboxfile.api import AsyncClient
from sandboxfile.build import apt_install
from sandboxfile.build.runner import Log
from sandboxfile.build.staging import staged
from sandboxfile.core.environment import build_environment
from sandboxfile.core.event import Event
from sandboxfile.core.layer import AptLayer, LayerKey, RunLayer, layer_key
from sandboxfile.engine.base import Command, Mount, Workspace
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.engines.linux.work import work
from sandboxfile.inputs.debfile import Deb

WAYS = ("ours", "dpkg", "apt")
_CHUNK = 1 << 20


class Quiet:
    """Listens to nothing."""

    def emit(self, event: Event) -> None:
        """Take an event."""


@dataclass
class Installed:
    """What one way made of the packages.

    entries: the manifest by path; each value is [type, mode, uid, gid, time, xattrs, …]
    log:     what was said, and which packages were left to dpkg
    marks:   apt's marks, when somebody has read them
    """

    way: str
    key: LayerKey
    diff_id: str
    seconds: float
    entries: dict[str, list[Any]]
    log: str
    marks: str = ""

    def left(self) -> dict[str, str]:
        """Why packages were left to dpkg, by the names of their files."""
        found = re.findall(r"(?m)^  (\S+\.deb): (.+)$", self.log)
        return dict(found)


async def built(client: AsyncClient, directory: Path) -> tuple[Installed, AptLayer, tuple[LayerKey, ...]]:
    """The first apt layer of a project, built as for a user, its definition and the stack below it."""
    await client.lock(client.load(directory=directory))
    started = time.monotonic()
    await client.build(client.load(directory=directory))
    seconds = time.monotonic() - started
    reconciled = await client.plan(client.load(directory=directory))
    planned = next(each for each in reconciled.plan.layers if isinstance(each.definition, AptLayer))
    layer, engine = planned.definition, client.engine
    assert isinstance(layer, AptLayer)
    assert isinstance(engine, LinuxEngine)
    committed = engine.layers.sealed(planned.key).committed
    manifest = await _manifest(engine, engine.layers.directory(planned.key) / "fs")
    log = client.store.log_path(planned.key).read_text("utf-8", "replace")
    made = Installed("ours", planned.key, str(committed.diff_id), seconds, manifest, log)
    return made, layer, tuple(planned.stack)


async def install(
    engine: LinuxEngine,
    layer: AptLayer,
    stack: Sequence[LayerKey],
    way: str,
    blobs: Mapping[str, Path],
    requests: Sequence[str] = (),
) -> Installed:
    """Install a layer in one of the ways, commit it under a key nothing else has, and describe it."""
    started = time.monotonic()
    workspace = await engine.prepare(stack)
    staging = engine.layers.home / "staging"
    with tempfile.TemporaryDirectory() as scratch:
        log = Log(Path(scratch) / "log", "install", Quiet())
        try:
            if way == "apt":
                await _apt(layer, workspace, blobs, staging, log, requests)
            else:
                await apt_install.install(
                    layer,
                    workspace,
                    blobs=blobs,
                    staging=staging,
                    log=log,
                    name=way,
                    unpacks=way == "ours",
                )
            definition = RunLayer(
                parents=tuple(stack), command=secrets.token_hex(16), env={}, cwd="/", user="root",
                network="none", secrets=(), epoch=layer.epoch,
            )  # fmt: skip
            committed = await workspace.commit(definition, layer_key(definition))
        except BaseException:
            await workspace.abort()
            raise
        finally:
            log.close()
        seconds = time.monotonic() - started
        text = (Path(scratch) / "log").read_text("utf-8", "replace")
    manifest = await _manifest(engine, engine.layers.directory(committed.key) / "fs")
    return Installed(way, committed.key, str(committed.diff_id), seconds, manifest, text)


async def _manifest(engine: LinuxEngine, root: Path) -> dict[str, list[Any]]:
    pieces: list[bytes] = []
    await work(engine.helper, "manifest", {}, {"root": str(root)}, deliver=pieces.append)
    rows = [json.loads(line) for line in b"".join(pieces).splitlines()]
    return {path: rest for path, *rest in rows}


async def _apt(
    layer: AptLayer,
    workspace: Workspace,
    blobs: Mapping[str, Path],
    staging: Path,
    log: Log,
    requests: Sequence[str],
) -> None:
    """`apt-get install`, with an archive of the layer's packages mounted."""
    here = "/run/archive"
    files: dict[str, Path | bytes] = {apt_install.deb_name(pin): blobs[pin.sha256] for pin in layer.install}
    index = await asyncio.to_thread(_index, layer, blobs)
    files["Packages"] = index
    env = build_environment(
        layer.epoch, {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}
    )
    options = (
        "-oDir::Etc::SourceList=/run/sources.list", "-oDir::Etc::SourceParts=/dev/null",
        "-oAPT::Sandbox::User=root", "-oDpkg::Options::=--force-unsafe-io",
        "-oDpkg::Options::=--force-confdef", "-oDpkg::Options::=--force-confold",
    )  # fmt: skip
    with (
        staged(staging, files) as directory,
        staged(staging, {"l": f"deb [trusted=yes] file:{here} ./\n".encode()}) as lists,
    ):
        mounts = (Mount(directory, here), Mount(lists / "l", "/run/sources.list"))
        for argv in (
            ("apt-get", *options, "update"),
            ("apt-get", *options, "install", "-y", "--no-install-recommends", *requests),
            ("apt-get", *options, "clean"),
        ):
            completed = await workspace.execute(Command(argv, env=env, mounts=mounts), log.output)
            assert completed.exit_code == 0, log.tail()


def _index(layer: AptLayer, blobs: Mapping[str, Path]) -> bytes:
    stanzas = []
    for pin in layer.install:
        path = blobs[pin.sha256]
        with path.open("rb") as file:
            control = Deb(file).control["control"].content.strip(b"\n").decode()
        stanzas.append(
            f"{control}\nFilename: ./{apt_install.deb_name(pin)}\nSize: {path.stat().st_size}\n"
            f"SHA256: {pin.sha256}\n"
        )
    return "\n".join(stanzas).encode()


def differences(one: Installed, other: Installed) -> dict[str, str]:
    """The paths in which two layers differ, and how."""
    found: dict[str, str] = {}
    for path in sorted({*one.entries, *other.entries}):
        left, right = one.entries.get(path), other.entries.get(path)
        if left != right:
            found[path] = f"{one.way}: {left} / {other.way}: {right}"
    return found
