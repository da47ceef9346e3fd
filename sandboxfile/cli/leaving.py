"""`up --detach`: start the command in a sandbox that goes on without us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxfile.cli.exits import DONE
from sandboxfile.cli.invocation import Invocation
from sandboxfile.errors import SandboxGone, StepFailed

if TYPE_CHECKING:
    from sandboxfile.api import AsyncClient, SnapshotInfo

_SHOWN_LINES = 20


async def leave_running(
    invocation: Invocation,
    client: AsyncClient,
    snapshot: SnapshotInfo,
    start: Mapping[str, Any],
    *,
    host_port: int | None,
    timeout: float | None,
) -> int:
    """Start, wait until the port answers, say where it is. Nothing stays when that fails.

    Raises StepFailed when the command ends before its port answers, EngineError when it does not in time.
    """
    console = invocation.console
    invocation.progress.close()
    sandbox = await client.sandboxes.create(
        snapshot.slug,
        detached=True,
        command=("/bin/sh", "-c", str(start["command"])),
        timeout=timeout,
    )
    port = start.get("port")
    url = None
    try:
        if isinstance(port, int):
            url = await sandbox.expose_http(port, host_port=host_port)
            await sandbox.wait_for_port(port)
    except SandboxGone as gone:
        text = (await sandbox.logs()).decode("utf-8", "replace")
        raise StepFailed(
            f"the start command ended before port {port} answered: {gone.message}",
            layer="start",
            exit_code=None,
            details=tuple(text.splitlines()[-_SHOWN_LINES:]),
        ) from None
    except BaseException:
        await sandbox.kill()
        raise
    if console.json:
        console.document({"slug": snapshot.slug, "url": url, "id": sandbox.id})
    else:
        console.data("\n".join([*([url] if url else []), sandbox.id]))
    if url is None:
        console.say("`start` names no port, so there is no URL")
    console.say(f"running; `sandboxfile sandboxes kill {sandbox.id}` stops it")
    return DONE
