"""Reaching a sandbox's loopback ports from this machine, whatever its network."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from sandboxfile.engines.linux.helper_client import HelperClient
from sandboxfile.engines.linux.operations import NamespaceSocket
from sandboxfile.errors import EngineError

_CHUNK = 1 << 16


async def connect_inside(helper: HelperClient, net: str, port: int) -> int:
    """A connected socket to a loopback port in a network namespace, the caller's to close."""
    loop = asyncio.get_running_loop()
    for v6, address in ((False, "127.0.0.1"), (True, "::1")):
        _, (descriptor,) = await helper.ask(NamespaceSocket(net, v6))
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, (address, port))
        except ConnectionRefusedError:
            connection.close()
        except OSError as error:
            connection.close()
            if not v6:
                raise EngineError(
                    f"port {port} of the sandbox cannot be reached: {error.strerror}"
                ) from error
        else:
            return connection.detach()
    raise ConnectionRefusedError(111, f"nothing listens on port {port} of the sandbox")


class Exposed:
    """A listener on this machine whose connections are joined to ones inside the sandbox."""

    def __init__(self, connect: Callable[[], Awaitable[int]]) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> str:
        """Start listening; the URL."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=_CHUNK)
        except OSError as error:
            raise EngineError(
                f"{host}:{port} cannot be listened on: {error.strerror}", hint="choose another port"
            ) from error
        bound = self._server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{bound}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._join(reader, writer)
        finally:
            self._connections.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            descriptor = await self._connect()
        except (OSError, EngineError):
            writer.transport.abort()
            return
        inside = socket.socket(fileno=os.dup(descriptor))
        os.close(descriptor)
        inside_reader, inside_writer = await asyncio.open_connection(sock=inside, limit=_CHUNK)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, inside_writer))
                group.create_task(_copy(inside_reader, writer))
        finally:
            for each in (writer, inside_writer):
                each.transport.abort()

    async def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._server:
            self._server.close()
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction; its end is passed on while the other direction goes on."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
