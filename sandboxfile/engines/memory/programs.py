"""The programs of the memory engine: as much of the usual ones as scripts in tests need."""

# Programs share one signature.
# ruff: noqa: ARG001

from __future__ import annotations

import asyncio
import posixpath
import re
import signal as signals

from sandboxfile.declared import replace
from sandboxfile.engines.memory.accounts import names
from sandboxfile.engines.memory.fileprograms import (
    cat,
    chmod,
    chown,
    cp,
    head,
    ln,
    ls,
    mkdir,
    mv,
    options_of,
    readlink,
    rm,
    rmdir,
    stat,
    touch,
)
from sandboxfile.engines.memory.machine import Process, Program
from sandboxfile.engines.memory.shell import shell

_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "r": "\r", "a": "\a", "b": "\b"}


async def true(process: Process) -> int:
    """`true`."""
    return 0


async def false(process: Process) -> int:
    """`false`."""
    return 1


async def echo(process: Process) -> int:
    """`echo [-n] WORD…`."""
    words = process.argv[1:]
    end = "\n"
    if words[:1] == ("-n",):
        words, end = words[1:], ""
    await process.say(" ".join(words) + end)
    return 0


async def printf(process: Process) -> int:
    """`printf FORMAT WORD…` with %s, %d, %% and backslash escapes."""
    form, words = process.argv[1], list(process.argv[2:])
    while True:
        before = len(words)
        await process.stdout.write(_formatted(form, words))
        if not words or len(words) == before:
            return 0


def _formatted(form: str, words: list[str]) -> bytes:
    def replaced(match: re.Match[str]) -> str:
        text = match[0]
        if text.startswith("\\"):
            octal = text[1:]
            return chr(0xDC00 + int(octal, 8)) if _high(octal) else _escape(octal)
        if text == "%%":
            return "%"
        return words.pop(0) if words else ("0" if text == "%d" else "")

    text = re.sub(r"\\[0-7]{1,3}|\\.|%%|%s|%d", replaced, form, flags=re.DOTALL)
    return text.encode("utf-8", "surrogateescape")


def _high(octal: str) -> bool:
    return octal[0].isdecimal() and 128 <= int(octal, 8) <= 255


def _escape(letter: str) -> str:
    return chr(int(letter, 8)) if letter[0].isdecimal() else _ESCAPES.get(letter, "\\" + letter)


async def wc(process: Process) -> int:
    """`wc -c` and `wc -l` of stdin."""
    data = await process.read_all()
    await process.say(f"{len(data) if process.argv[1] == '-c' else data.count(10)}\n")
    return 0


async def seq(process: Process) -> int:
    """`seq [FIRST] LAST`."""
    numbers = [int(word) for word in process.argv[1:]]
    first, last = (numbers[0], numbers[1]) if len(numbers) > 1 else (1, numbers[0])
    for start in range(first, last + 1, 500):
        await process.say("".join(f"{number}\n" for number in range(start, min(start + 500, last + 1))))
    return 0


async def identity(process: Process) -> int:
    """`id`, `id -u`, `id -g`, `id -un`, `id -gn`."""
    options, _ = options_of(process.argv[1:])
    group = "g" in options
    number = process.who.gid if group else process.who.uid
    if "n" in options:
        table = names(process.files, "/etc/group" if group else "/etc/passwd")
        await process.say(f"{table.get(number, number)}\n")
    elif options:
        await process.say(f"{number}\n")
    else:
        await process.say(f"uid={process.who.uid} gid={process.who.gid}\n")
    return 0


async def env(process: Process) -> int:
    """`env [-i] [NAME=VALUE…] [PROGRAM…]`; alone it prints the environment."""
    words = list(process.argv[1:])
    inherited = dict(process.env)
    if words[:1] == ["-i"]:
        words.pop(0)
        inherited = {}
    while words and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        inherited[name] = value
    if not words:
        await process.say("".join(f"{name}={value}\n" for name, value in inherited.items()))
        return 0
    return await process.machine.spawn(replace(process, argv=tuple(words), env=inherited)).wait()


async def sleep(process: Process) -> int:
    """`sleep SECONDS`."""
    await asyncio.sleep(float(process.argv[1]))
    return 0


async def kill(process: Process) -> int:
    """`kill [-SIGNAL] PID…`."""
    words = list(process.argv[1:])
    number = int(signals.SIGTERM)
    if words[0].startswith("-"):
        name = words.pop(0)[1:]
        number = int(name) if name.isdecimal() else int(signals.Signals[f"SIG{name.removeprefix('SIG')}"])
    for word in words:
        if not process.machine.kill(int(word), number):
            return await process.complain(f"({word}) - No such process")
    return 0


async def pwd(process: Process) -> int:
    """`pwd`."""
    await process.say(process.cwd + "\n")
    return 0


async def test(process: Process) -> int:
    """`test` and `[` with -e -f -d -L -x -r -s -n -z, =, !=, -eq, -ne, -lt, -gt and !."""
    words = list(process.argv[1:])
    if posixpath.basename(process.argv[0]) == "[" and words.pop() != "]":
        return 2 * await process.complain("missing ]")
    negated = words[:1] == ["!"]
    result = _holds(process, words[1:] if negated else words)
    return 0 if result != negated else 1


def _holds(process: Process, words: list[str]) -> bool:
    if len(words) == 3:
        left, operator, right = words
        if operator in ("=", "!="):
            return (left == right) == (operator == "=")
        first, second = int(left), int(right)
        return {"-eq": first == second, "-ne": first != second, "-lt": first < second, "-gt": first > second}[
            operator
        ]
    if len(words) == 1:
        return words[0] != ""
    if not words:
        return False
    option, word = words
    if option in ("-n", "-z"):
        return (word != "") == (option == "-n")
    if not process.files.exists(word, cwd=process.cwd, follow=option not in ("-L", "-h")):
        return False
    node = process.files.stat(word, cwd=process.cwd, follow=option not in ("-L", "-h"))
    return {
        "-e": True,
        "-f": node.type == "file",
        "-d": node.is_dir,
        "-L": node.type == "symlink",
        "-h": node.type == "symlink",
        "-x": bool(node.mode & 0o111),
        "-r": True,
        "-s": bool(node.content),
    }[option]


async def echo_server(process: Process) -> int:
    """Listens on the loopback port that is its last argument and gives back what each client sends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process.machine.connections.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            process.machine.connections.discard(writer)
            writer.close()

    port = int(process.argv[-1])
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    process.machine.listeners[port] = server
    try:
        await asyncio.Event().wait()
    finally:
        process.machine.listeners.pop(port, None)
        server.close()
    return 0


PROGRAMS: dict[str, Program] = {
    "[": test,
    "cat": cat,
    "chmod": chmod,
    "chown": chown,
    "cp": cp,
    "echo": echo,
    "echo-server": echo_server,
    "env": env,
    "false": false,
    "head": head,
    "id": identity,
    "kill": kill,
    "ln": ln,
    "ls": ls,
    "mkdir": mkdir,
    "mv": mv,
    "printf": printf,
    "pwd": pwd,
    "readlink": readlink,
    "rm": rm,
    "rmdir": rmdir,
    "seq": seq,
    "sh": shell,
    "sleep": sleep,
    "stat": stat,
    "test": test,
    "touch": touch,
    "true": true,
    "wc": wc,
}
"""Programs by name; every base tree of the memory engine has them in /usr/bin."""
