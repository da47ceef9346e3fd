"""Checks: each runs in a throw-away fork of the candidate, and all of them gate its slug."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from sandboxfile.build.runner import Log, how_it_ended
from sandboxfile.core.environment import run_environment
from sandboxfile.core.event import Outcome, Reporter, TaskFinished, TaskStarted
from sandboxfile.core.layer import LayerKey, SnapshotConfig
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Command, Completed, Engine, Sandbox
from sandboxfile.errors import StepFailed
from sandboxfile.plan.environment import network_text
from sandboxfile.plan.model import PlannedCheck
from sandboxfile.spec.model import Check, HttpCheck

_POLL_FIRST = 0.01
_POLL_LONGEST = 0.25


@dataclass(frozen=True)
class CheckResult:
    """How a check went: `failure` is None when it passed. `command` is what it ran, for `debug`."""

    check: PlannedCheck
    seconds: float
    command: Command
    failure: StepFailed | None = None


def command_of(check: Check, config: SnapshotConfig) -> Command:
    """The command a check runs; for an HTTP check, the start command."""
    user = check.user or config.user
    shell = check.run if check.run is not None else (config.start.command if config.start else "true")
    return Command(
        ("/bin/sh", "-c", shell),
        env=run_environment({**config.env, **check.env}, user=user),
        cwd=check.workdir or config.workdir,
        user=user,
        network=network_text(check.network),
        timeout=check.timeout,
    )


async def run_checks(
    checks: tuple[PlannedCheck, ...],
    *,
    engine: Engine,
    stack: tuple[LayerKey, ...],
    config: SnapshotConfig,
    reporter: Reporter,
    logs: Path,
    parallel: int,
) -> tuple[CheckResult, ...]:
    """Run checks side by side, each in a sandbox of its own; results in the order given."""
    places = asyncio.Semaphore(parallel)

    async def one(check: PlannedCheck) -> CheckResult:
        async with places:
            return await _run_check(check, engine, stack, config, reporter, logs)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(check)) for check in checks]
    return tuple(task.result() for task in tasks)


async def _run_check(
    planned: PlannedCheck,
    engine: Engine,
    stack: tuple[LayerKey, ...],
    config: SnapshotConfig,
    reporter: Reporter,
    logs: Path,
) -> CheckResult:
    task = f"check:{planned.name}"
    reporter.emit(TaskStarted(task, planned.title, "verify"))
    log = Log(logs / f"{planned.key.partition(':')[2]}.log", task, reporter)
    check = planned.check
    command = command_of(check, config)
    started = time.monotonic()
    outcome = Outcome.CANCELLED
    detail = ""
    try:
        sandbox = await engine.start(stack, network=command.network)
        try:
            if check.http is not None:
                problem = await _http_problem(check.http, check, config, sandbox, command, log)
            else:
                problem = await _command_problem(check, sandbox, command, log)
        finally:
            await sandbox.close()
        outcome = Outcome.FAILED if problem else Outcome.DONE
        detail = problem[0] if problem else ""
    finally:
        log.close()
        seconds = time.monotonic() - started
        reporter.emit(TaskFinished(task, outcome, detail))
    if problem is None:
        return CheckResult(planned, seconds, command)
    sentence, completed = problem
    hint = "look around in the same state with `sandboxfile debug`"
    if completed is not None and log.wants_network and not check.network:
        hint = "checks have no network; if this one needs it, write it as `{run: …, network: true}`"
    failure = StepFailed(
        f"check failed: {planned.title} {sentence}",
        layer=planned.name,
        exit_code=completed.exit_code if completed else None,
        span=check.span,
        hint=hint,
        details=log.tail(),
    )
    return CheckResult(planned, seconds, command, failure)


_Problem = tuple[str, Completed | None] | None


async def _command_problem(check: Check, sandbox: Sandbox, command: Command, log: Log) -> _Problem:
    streams: Mapping[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def output(stream: str, data: bytes) -> None:
        streams[stream].extend(data)
        log.output(stream, data)

    completed = await sandbox.execute(command, output)
    if completed.timed_out or completed.exit_code != check.exit:
        wanted = f", not with {check.exit}" if check.exit and not completed.timed_out else ""
        return how_it_ended(completed, check.timeout) + wanted, completed
    for stream, pattern in (("stdout", check.stdout), ("stderr", check.stderr)):
        text = streams[stream].decode("utf-8", "replace")
        if pattern is not None and not re.search(pattern, text, re.MULTILINE):
            return f"wrote a {stream} in which `{pattern}` is not found", completed
    return None


async def _http_problem(
    http_check: HttpCheck,
    check: Check,
    config: SnapshotConfig,
    sandbox: Sandbox,
    command: Command,
    log: Log,
) -> _Problem:
    """Start the environment's command, ask once it listens, and look at the answer."""
    port = config.start.port if config.start else None
    if port is None:
        return "needs `start` with a port", None
    deadline = time.monotonic() + check.timeout
    server = asyncio.create_task(sandbox.execute(command, log.output))
    try:
        connection = await _when_listening(sandbox, port, server, deadline)
        if connection is None:
            if server.done():
                ended = how_it_ended(server.result(), check.timeout)
                return f"got no answer: the start command {ended}", server.result()
            return f"got no answer: nothing listened on port {port} within {check.timeout:g} s", None
        remaining = max(deadline - time.monotonic(), 0.1)
        try:
            status, body = await asyncio.to_thread(_ask, connection, http_check, port, remaining)
        except (OSError, http.client.HTTPException) as error:
            return f"got no HTTP answer: {error or type(error).__name__}", None
        log.note(f"{http_check.method} {http_check.path} -> {status}, {len(body)} bytes")
        if status != http_check.status:
            return f"answered with status {status}, not {http_check.status}", None
        if http_check.body is not None and not re.search(http_check.body, body, re.MULTILINE):
            return f"answered with a body in which `{http_check.body}` is not found", None
        return None
    finally:
        # The sandbox is closed next, which ends the server; waiting for it here would wait for ever.
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def _when_listening(
    sandbox: Sandbox, port: int, server: asyncio.Task[Completed], deadline: float
) -> socket.socket | None:
    pause = _POLL_FIRST
    while time.monotonic() < deadline and not server.done():
        try:
            return socket.socket(fileno=await sandbox.connect(port))
        except ConnectionRefusedError:
            await asyncio.wait((server,), timeout=pause)
            pause = min(pause * 2, _POLL_LONGEST)
    return None


def _ask(connection: socket.socket, check: HttpCheck, port: int, timeout: float) -> tuple[int, str]:
    connection.setblocking(True)
    connection.settimeout(timeout)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    client.sock = connection
    try:
        client.request(check.method, check.path, headers={"Connection": "close"})
        answer = client.getresponse()
        return answer.status, answer.read(16 * 1024 * 1024).decode("utf-8", "replace")
    finally:
        client.close()
