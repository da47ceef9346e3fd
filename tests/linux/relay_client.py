"""A program on the machine of `relay_world`: boots a sandbox with network, runs commands in it and tells."""

import asyncio
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import LayerKey, RootfsBase, layer_key
from sandboxfile.engine.base import Command, Limits, SandboxOptions
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import SandboxfileError

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


async def unpacked(engine: LinuxEngine, archive: Path) -> LayerKey:
    """Commit a root file system as a base."""
    base = RootfsBase(sha256(archive.read_bytes()).hexdigest(), 0)
    workspace = await engine.unpack(base, archive, lambda stream, data: None)
    return (await workspace.commit(base, layer_key(base))).key


async def main(request: dict[str, Any]) -> dict[str, Any]:
    notices: list[str] = []
    engine = LinuxEngine(
        Path(request["home"]), full_network=request.get("full_network"), notify=notices.append
    )
    told: dict[str, Any] = {"warnings": (), "notices": notices, "said": [], "failed": ""}
    try:
        stack = tuple(LayerKey(Digest(key)) for key in request["stack"])
        if "rootfs" in request:
            stack = (await unpacked(engine, Path(request["rootfs"])),)
        if request.get("step"):
            where: Any = await engine.prepare(stack)
        else:
            limits = Limits(pids=request.get("pids"))
            options = SandboxOptions(
                limits=limits, network="full", privileges=request.get("privileges", "none")
            )
            where = await engine.start(stack, options=options)
            told["warnings"] = where.warnings
        for argv in request["commands"]:
            said = {"stdout": b"", "stderr": b""}

            def take(stream: str, data: bytes, said: dict[str, bytes] = said) -> None:
                said[stream] += data

            command = Command(tuple(argv), ENV, network="full", timeout=60)
            done = await where.execute(command, take)
            told["said"].append((done.exit_code, said["stdout"].decode(), said["stderr"].decode()))
        if request.get("step"):
            await where.abort()
    except SandboxfileError as error:
        told["failed"] = f"{error.message} ({error.hint})"
    finally:
        await engine.close()
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
