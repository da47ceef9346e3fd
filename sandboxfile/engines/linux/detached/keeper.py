"""The keeper of a detached sandbox: the client that stays when the one that made it has gone.

It is asked through a socket beside the sandbox's file in the store. One keeper has one sandbox and ends with
it; its death, by whatever cause, ends its helper and so the sandbox, and frees every lock.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from pathlib import Path

from sandboxfile.declared import replace
from sandboxfile.engine.base import Completed, Stdio
from sandboxfile.engines.linux.detached import documents
from sandboxfile.engines.linux.detached.documents import Document
from sandboxfile.engines.linux.detached.serving import Connection
from sandboxfile.engines.linux.detached.sockets import listen, peer, prepare
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.engines.linux.sandbox import LinuxSandbox
from sandboxfile.engines.linux.streams import Reader
from sandboxfile.engines.linux.wire import receive
from sandboxfile.errors import EngineError
from sandboxfile.store.locks import Locks
from sandboxfile.store.sandboxes import Entry, SandboxInfo, socket_of
from sandboxfile.store.uses import Uses

LOG = 256 * 1024
"""Bytes of the command's output that are kept: the last ones."""
_LAST_WORDS = 2.0
_SHOWN = 1000
_ENDED = EngineError("the sandbox has ended")


class Keeper:
    """One sandbox, and whoever is connected to it.

    kept:      whether it outlives the client that makes it
    variables: what commands get beside what their client says
    log:       the last of what the sandbox's own command has written
    """

    sandbox: LinuxSandbox

    def __init__(self, request: Document, creator: socket.socket) -> None:
        self.kept = False
        self.variables: dict[str, str] = request["variables"]
        self.log = bytearray()
        self._request = request
        self._home = Path(request["home"])
        self._about = request["about"]
        self._engine = LinuxEngine(
            self._home,
            runtime=request["runtime"],
            host_ca=Path(request["host_ca"]) if request["host_ca"] else None,
            full_network=request["full_network"],
        )
        self._over = asyncio.Event()
        self._connections: set[Connection] = set()
        self._clearing: set[asyncio.Task[None]] = set()
        self._completed: Completed | None = None
        self._main: asyncio.Task[None] | None = None
        self._creator = Connection(self, creator)
        self._connections.add(self._creator)
        self._entry: Entry | None = None

    async def run(self) -> None:
        """Boot, serve, and give everything back."""
        directory = self._home / "sandboxes"
        path = socket_of(directory, self._request["name"])
        uses = Uses(Locks(self._home / "locks"))
        info = SandboxInfo(**{**self._request["info"], "client": os.getpid(), "detached": True})
        listener: socket.socket | None = None
        try:
            uses.hold(layers=map(documents.key, self._request["layers"]))
            # Known before anything is mounted, so that whoever comes after our death cleans up.
            self._entry = Entry(directory, info)
            listener = listen(path)
            if await self._boot():
                asyncio.get_running_loop().add_reader(listener, self._accept, listener)
                await self._creator.say(self._hello())
                # What start-up leaves behind is not looked at again.
                gc.collect()
                gc.freeze()
                await self._over.wait()
        except Exception as error:
            await self._creator.say({"event": "failed", "error": documents.of_error(error)})
        finally:
            if listener is not None:
                path.unlink(missing_ok=True)
                asyncio.get_running_loop().remove_reader(listener)
                listener.close()
            await self._close()
            if self._entry is not None:
                self._entry.remove()
            uses.close()
            # Last: whoever is told by this finds nothing left.
            for connection in tuple(self._connections):
                connection.hang_up()

    async def _boot(self) -> bool:
        """Start the sandbox; whether somebody still wants it."""
        starting = asyncio.ensure_future(self._start())
        over = asyncio.ensure_future(self._over.wait())
        await asyncio.wait({starting, over}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        over.cancel()
        if starting.cancelled():
            return False
        starting.result()
        return not self._over.is_set()

    async def _start(self) -> None:
        request = self._request
        options = documents.to_options(request["options"])
        self.sandbox = await self._engine.start(tuple(map(documents.key, request["stack"])), options=options)
        timeout = options.timeout if options.timeout is not None else options.limits.timeout
        if timeout is not None and self._entry is not None:
            self._entry.write(replace(self._entry.info, ends_at=time.time() + timeout))
        self.sandbox.when_ended(self.end)
        if request["command"] is None:
            return
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            command = documents.to_command(request["command"])
            process = await self.sandbox.spawn(command, Stdio(-1, writing, writing), own=True)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        ending = asyncio.ensure_future(process.wait())
        if (await asyncio.wait([ending], timeout=0))[0]:
            # It could not be started, and was told why.
            said = os.read(reading, _SHOWN).decode("utf-8", "replace").strip()
            os.close(reading)
            raise EngineError(
                f"the command of the sandbox could not be started: {said.removeprefix('sandboxfile: ')}"
            )
        self._main = asyncio.ensure_future(self._follow(ending, reading))

    async def _follow(self, ending: asyncio.Future[Completed], reading: int) -> None:
        """Keep the last of what the command writes. The sandbox ends with it."""
        reader = Reader(reading, self._note)
        try:
            self._completed = await ending
            reader.drain()
        finally:
            reader.stop()
            os.close(reading)
            self.end()

    def _note(self, data: bytes) -> None:
        self.log += data
        del self.log[:-LOG]

    def _accept(self, listener: socket.socket) -> None:
        try:
            channel, _ = listener.accept()
        except OSError:
            # It has gone again, or there is no descriptor left for it.
            return
        if peer(channel)[1] not in (os.geteuid(), 0):
            channel.close()
            return
        prepare(channel)
        connection = Connection(self, channel)
        self._connections.add(connection)
        greeting = asyncio.ensure_future(connection.say(self._hello()))
        self._clearing.add(greeting)
        greeting.add_done_callback(self._clearing.discard)

    def _hello(self) -> Document:
        options = documents.to_options(self._request["options"])
        return {
            "event": "hello",
            "protocol": documents.PROTOCOL,
            "id": self.sandbox.id,
            "stack": list(self.sandbox.stack),
            "warnings": list(self.sandbox.warnings),
            "pid": self.sandbox.pid,
            "output": options.limits.output,
            "about": self._about,
            "variables": self.variables,
        }

    def left(self, connection: Connection) -> None:
        """Told when a client is gone. Before it was told to stay, the sandbox ends with its maker."""
        self._connections.discard(connection)
        if connection is self._creator and not self.kept:
            self.end()
        clearing = asyncio.ensure_future(connection.clear())
        self._clearing.add(clearing)
        clearing.add_done_callback(self._clearing.discard)

    def end(self) -> None:
        """Have everything end. May be called twice."""
        self._over.set()

    async def expose(self, port: int, host: str, host_port: int) -> str:
        """Serve a port of the sandbox from here, for as long as the sandbox lives."""
        url = await self.sandbox.expose(port, host=host, host_port=host_port)
        if self._entry is not None and self._entry.info.url is None:
            self._entry.write(replace(self._entry.info, url=url))
        return url

    async def extend(self, timeout: float) -> None:
        """Let it live for at least `timeout` seconds from now: never less than any client was told."""
        assert self._entry is not None
        wanted = time.time() + timeout
        if self._entry.info.ends_at is not None and self._entry.info.ends_at >= wanted:
            return
        self._entry.write(replace(self._entry.info, ends_at=wanted))
        await self.sandbox.extend(timeout)

    def set_variables(self, changes: dict[str, str | None]) -> None:
        """Change variables for all clients, who are told."""
        if not changes:
            return
        for name, value in changes.items():
            if value is None:
                self.variables.pop(name, None)
            else:
                self.variables[name] = value
        for connection in tuple(self._connections):
            connection.tell({"event": "variables", "variables": self.variables})

    async def _close(self) -> None:
        """End the sandbox and its helper."""
        error: Exception = _ENDED
        if hasattr(self, "sandbox"):
            error = self.sandbox.end_reason() or _ENDED
            await self.sandbox.close()
        if self._main is not None:
            await asyncio.wait([self._main])
        said = {
            "event": "ended",
            "error": documents.of_error(error),
            "completed": documents.of_completed(self._completed) if self._completed else None,
            "log": bytes(self.log).hex(),
        }
        await self._engine.close()
        telling = [connection.tell(said) for connection in tuple(self._connections)]
        if telling:
            # Nobody who does not listen keeps it from ending.
            await asyncio.wait(telling, timeout=_LAST_WORDS)


def main(descriptor: int) -> None:
    """The process. It is given a connection to whoever wants the sandbox, who says first what is wanted."""
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    _close_others(descriptor)
    creator = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    creator.setblocking(True)
    # Locks of volumes, which are held by being open.
    request, _locks = receive(creator)
    if request is None:
        os._exit(0)
    creator.setblocking(False)
    try:
        asyncio.run(_keep(request, creator))
    finally:
        # Nothing that is still open has anything to say; locks are free with the process.
        os._exit(0)


async def _keep(request: Document, creator: socket.socket) -> None:
    keeper = Keeper(request, creator)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, keeper.end)
    for ignored in (signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    await keeper.run()


def _close_others(kept: int) -> None:
    """Close what was inherited: this process lives long."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:
                # The descriptor of the listing itself.
                pass
