"""Processes in a workspace or a sandbox: asyncio tasks that share a filesystem and nothing else."""

from __future__ import annotations

import asyncio
import posixpath
import signal as signals
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field

from sandboxfile.declared import dataclass, replace
from sandboxfile.engines.memory.filesystem import Credentials, Filesystem, Node, failure
from sandboxfile.engines.memory.streams import Discard, Given, Sink, Source

Program = Callable[["Process"], Awaitable[int]]
"""What a program is: a coroutine that is given its process and returns the exit code."""

MARK = b"#!memory "
"""An executable file that begins with this is the program named on the rest of its first line."""


@dataclass
class Process:
    """A process as its program sees it. `files` is what it sees of the filesystem."""

    machine: Machine
    files: Filesystem
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str = "/"
    who: Credentials = field(default_factory=Credentials)
    stdin: Source = field(default_factory=Given)
    stdout: Sink = field(default_factory=Discard)
    stderr: Sink = field(default_factory=Discard)
    umask: int = 0o022
    network: str = "none"
    pid: int = 0

    async def say(self, text: str) -> None:
        """Write a text to stdout."""
        await self.stdout.write(text.encode("utf-8", "surrogateescape"))

    async def complain(self, text: str) -> int:
        """Write a line to stderr, with the program's name before it; 1, the exit code of failure."""
        name = posixpath.basename(self.argv[0])
        await self.stderr.write(f"{name}: {text}\n".encode("utf-8", "surrogateescape"))
        return 1

    async def read_all(self) -> bytes:
        """All of stdin."""
        data = bytearray()
        while chunk := await self.stdin.read():
            data += chunk
        return bytes(data)


@dataclass
class Running:
    """A process that was started. `killed` is the signal that ended it."""

    process: Process
    task: asyncio.Task[int]
    killed: int | None = None

    async def wait(self) -> int:
        """The exit code. Cancelling who waits does not end the process."""
        await asyncio.wait({self.task})
        if self.killed is not None:
            return 128 + self.killed
        if self.task.cancelled():
            return 128 + signals.SIGKILL
        # What a program raises is the test's own failure, and must be seen.
        return self.task.result()


class Machine:
    """Where processes run.

    proc:        what they see in /proc
    listeners:   the servers of the ports they listen on
    connections: open connections to those
    """

    def __init__(self, programs: Mapping[str, Program], script: Mapping[str, Program]) -> None:
        self.programs = programs
        self.script = script
        self.running: dict[int, Running] = {}
        self.proc: dict[str, Node] = {"/proc": Node("dir", 0o555)}
        self.listeners: dict[int, asyncio.Server] = {}
        self.connections: set[asyncio.StreamWriter] = set()
        self._next = 2
        # Kept after a process has ended: what it started is still its own.
        self._parents: dict[int, int] = {}

    def spawn(self, process: Process, program: Program | None = None) -> Running:
        """Start a process. Without `program` the one its first argument names is looked up."""
        pid, self._next = self._next, self._next + 1
        parent, process.pid = process.pid, pid
        self._parents[pid] = parent
        started: asyncio.Task[int] = asyncio.get_running_loop().create_task(self._main(process, program))
        running = Running(process, started)
        self.running[pid] = running
        place = f"/proc/{pid}"
        self.proc[place] = Node("dir", 0o555)
        words = "".join(f"{word}\0" for word in process.argv).encode("utf-8", "surrogateescape")
        self.proc[f"{place}/cmdline"] = Node("file", 0o444, content=words)

        def gone(_: asyncio.Task[int]) -> None:
            self.running.pop(pid, None)
            self.proc.pop(f"{place}/cmdline", None)
            self.proc.pop(place, None)

        started.add_done_callback(gone)
        return running

    def kill(self, pid: int, signal: int) -> bool:
        """Send a signal; whether there is such a process. Any but 0 ends it."""
        running = self.running.get(pid)
        if running is None or running.task.done():
            return False
        if signal and running.killed is None:
            running.killed = signal
            running.task.cancel()
        return True

    async def end(self, pid: int | None = None) -> None:
        """Kill a process and all it started, or every process, and wait until they are gone."""
        doomed = [r for r in self.running.values() if pid is None or pid in self._line(r)]
        for running in doomed:
            self.kill(running.process.pid, signals.SIGKILL)
        if doomed:
            await asyncio.wait({running.task for running in doomed})
        if pid is None:
            for server in self.listeners.values():
                server.close()
            self.listeners.clear()
            for writer in list(self.connections):
                writer.close()

    def _line(self, running: Running) -> list[int]:
        """A process and those it comes from."""
        line = [running.process.pid]
        while line[-1] in self._parents:
            line.append(self._parents[line[-1]])
        return line

    async def _main(self, process: Process, program: Program | None) -> int:
        if program is None:
            program, process.argv = self.find(process)
        try:
            return await program(process)
        except BrokenPipeError:
            return 128 + signals.SIGPIPE
        except OSError as error:
            return await process.complain(f"{error.filename or ''}: {error.strerror}".lstrip(": "))

    def find(self, process: Process) -> tuple[Program, tuple[str, ...]]:
        """The program that argv names, and the argv it gets (a script's interpreter comes first)."""
        argv = process.argv
        if argv[:1] and argv[0].rpartition("/")[2] == "sh" and len(argv) > 2 and "c" in argv[1]:
            scripted = self.script.get(argv[2])
            if scripted is not None:
                return scripted, argv
        scripted = self.script.get(" ".join(argv))
        if scripted is not None:
            return scripted, argv
        try:
            content = self._executable(process)
        except FileNotFoundError:
            return _refuse(127, "not found"), argv
        except OSError as error:
            return _refuse(126, error.strerror or "cannot be run"), argv
        first, _, _ = content.partition(b"\n")
        if first.startswith(MARK):
            name = first[len(MARK) :].decode()
            return self.programs.get(name, _refuse(127, "not found")), argv
        if first.startswith(b"#!"):
            interpreter = first[2:].decode().split()
            return self.find(replace(process, argv=(*interpreter, process.argv[0], *argv[1:])))
        return _refuse(126, "Exec format error"), argv

    def _executable(self, process: Process) -> bytes:
        name = process.argv[0]
        if "/" in name:
            places = [name]
        else:
            path = process.env.get("PATH", "/usr/local/bin:/usr/bin:/bin")
            places = [f"{directory}/{name}" for directory in path.split(":") if directory]
        denied: OSError = FileNotFoundError(2, "not found", name)
        for place in places:
            try:
                node = process.files.stat(place, cwd=process.cwd)
                if node.type != "file" or not node.mode & 0o111:
                    raise failure(13, place)
                return node.content
            except FileNotFoundError:
                continue
            except OSError as error:
                denied = error
        raise denied


def _refuse(code: int, why: str) -> Program:
    async def refuse(process: Process) -> int:
        await process.complain(why)
        return code

    return refuse
