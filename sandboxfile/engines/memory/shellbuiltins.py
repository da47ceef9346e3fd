"""Commands that the memory engine's shell does itself."""

# Builtins share one signature, and what ends a list of commands is no error.
# ruff: noqa: ARG001

from __future__ import annotations

import signal as signals
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sandboxfile.declared import dataclass
from sandboxfile.engines.memory.streams import Pipe, Sink, Source

if TYPE_CHECKING:
    from sandboxfile.engines.memory.shell import Shell


class Leave(Exception):
    """`exit`."""

    def __init__(self, code: int) -> None:
        self.code = code


class Break(Exception):
    """`break`."""


class Continue(Exception):
    """`continue`."""


@dataclass
class Streams:
    """Where a command reads and writes."""

    stdin: Source
    stdout: Sink
    stderr: Sink


async def _colon(shell: Shell, words: list[str], streams: Streams) -> int:
    return 0


async def _cd(shell: Shell, words: list[str], streams: Streams) -> int:
    target = words[1] if len(words) > 1 else shell.process.env.get("HOME", "/")
    files = shell.process.files
    if (
        not files.exists(target, cwd=shell.process.cwd)
        or not files.stat(target, cwd=shell.process.cwd).is_dir
    ):
        await streams.stderr.write(f"sh: cd: can't cd to {target}\n".encode())
        return 2
    shell.process.cwd = files.resolve(target, cwd=shell.process.cwd)
    return 0


async def _exit(shell: Shell, words: list[str], streams: Streams) -> int:
    raise Leave(int(words[1]) & 255 if len(words) > 1 else shell.status)


async def _export(shell: Shell, words: list[str], streams: Streams) -> int:
    for word in words[1:]:
        name, mark, value = word.partition("=")
        shell.process.env[name] = value if mark else shell.value(name)
        shell.variables.pop(name, None)
    return 0


async def _unset(shell: Shell, words: list[str], streams: Streams) -> int:
    for name in words[1:]:
        shell.variables.pop(name, None)
        shell.process.env.pop(name, None)
    return 0


async def _set(shell: Shell, words: list[str], streams: Streams) -> int:
    for word in words[1:]:
        if "e" in word[1:]:
            shell.errexit = word.startswith("-")
    return 0


async def _umask(shell: Shell, words: list[str], streams: Streams) -> int:
    if len(words) > 1:
        shell.process.umask = int(words[1], 8)
    else:
        await streams.stdout.write(f"{shell.process.umask:04o}\n".encode())
    return 0


async def _wait(shell: Shell, words: list[str], streams: Streams) -> int:
    wanted = [int(word) for word in words[1:]]
    code = 0
    for running in list(shell.background):
        if not wanted or running.process.pid in wanted:
            code = await running.wait()
    return code if wanted else 0


async def _kill(shell: Shell, words: list[str], streams: Streams) -> int:
    number = int(signals.SIGTERM)
    targets = words[1:]
    if targets and targets[0].startswith("-"):
        name = targets.pop(0)[1:]
        if name == "s":
            name = targets.pop(0)
        number = int(name) if name.isdecimal() else int(signals.Signals[f"SIG{name.removeprefix('SIG')}"])
    for target in targets:
        if not shell.process.machine.kill(int(target), number):
            await streams.stderr.write(b"sh: kill: No such process\n")
            return 1
    # A signal that a shell sends to itself ends it here and now.
    if number and str(shell.process.pid) in targets:
        await Pipe().read()
    return 0


async def _break(shell: Shell, words: list[str], streams: Streams) -> int:
    raise Break


async def _continue(shell: Shell, words: list[str], streams: Streams) -> int:
    raise Continue


Builtin = Callable[["Shell", list[str], Streams], Awaitable[int]]
BUILTINS: dict[str, Builtin] = {
    ":": _colon,
    "break": _break,
    "cd": _cd,
    "continue": _continue,
    "exit": _exit,
    "export": _export,
    "kill": _kill,
    "set": _set,
    "umask": _umask,
    "unset": _unset,
    "wait": _wait,
}
"""By name."""
