"""Making a detached sandbox, and finding one again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandboxfile.core.layer import LayerKey
from sandboxfile.engine.base import Detachment, SandboxOptions
from sandboxfile.engines.linux.detached import documents, sockets
from sandboxfile.engines.linux.detached.launch import launch
from sandboxfile.engines.linux.detached.link import Link
from sandboxfile.engines.linux.detached.sandbox import LinuxDetached
from sandboxfile.errors import EngineError, NoSuchSandbox
from sandboxfile.store.sandboxes import socket_of

_BOOT_DEADLINE = 60.0


async def detach(
    home: Path,
    settings: Mapping[str, Any],
    environ: Mapping[str, str],
    stack: Sequence[LayerKey],
    options: SandboxOptions,
    detachment: Detachment,
) -> LinuxDetached:
    """Start a keeper, and have it boot a sandbox. What fails there is raised here, when nothing is left."""
    try:
        pid, channel = launch(environ)
    except OSError as error:
        raise EngineError(f"the sandbox's keeper could not be started: {error.strerror}") from error
    link = Link(channel, pid)
    request = {
        "home": str(home),
        **settings,
        "name": detachment.info.id,
        "info": asdict(detachment.info),
        "stack": list(stack),
        "layers": list(detachment.layers),
        "options": documents.of_options(options),
        "about": dict(detachment.about),
        "variables": dict(detachment.variables),
        "command": documents.of_command(detachment.command) if detachment.command else None,
    }
    try:
        await link.say(request, detachment.locks)
        hello = await link.hello(_BOOT_DEADLINE)
    except BaseException:
        # It ends when nobody is there who wants it.
        link.hang_up()
        await asyncio.shield(link.gone())
        raise
    return LinuxDetached(link, hello)


async def connect(home: Path, name: str) -> LinuxDetached:
    """A connection to a sandbox's keeper. NoSuchSandbox."""
    gone = NoSuchSandbox(f"the sandbox {name} has ended", hint="create another one")
    try:
        channel = sockets.connect(socket_of(home / "sandboxes", name))
    except (FileNotFoundError, ConnectionRefusedError):
        raise gone from None
    except OSError as error:
        raise EngineError(f"the sandbox {name} cannot be reached: {error.strerror}") from error
    pid, uid = sockets.peer(channel)
    if uid not in (os.geteuid(), 0):
        channel.close()
        raise EngineError(f"the sandbox {name} is kept by another user, {uid}")
    try:
        link = Link(channel, pid)
    except ProcessLookupError:
        channel.close()
        raise gone from None
    except OSError:
        channel.close()
        raise EngineError(
            f"the sandbox {name} is kept by a process that cannot be seen from here",
            hint="use it where it was made: another container, or the host, has other process ids",
        ) from None
    try:
        return LinuxDetached(link, await link.hello())
    except BaseException as error:
        ended = not link.open
        link.close()
        if ended and isinstance(error, EngineError):
            raise gone from None
        raise
