"""The programs of the memory engine: as much of the usual ones as scripts in tests need."""

from __future__ import annotations

import asyncio
import posixpath
import re
import signal as signals
from collections.abc import Iterable
from dataclasses import replace

from sandboxfile.engines.memory.filesystem import Credentials, Filesystem, Node
from sandboxfile.engines.memory.machine import Process, Program
from sandboxfile.engines.memory.shell import shell
from sandboxfile.engines.memory.streams import Source, Zeros

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


async def cat(process: Process) -> int:
    """`cat [FILE…]`."""
    code = 0
    for name in process.argv[1:] or ("-",):
        if name == "-":
            while chunk := await process.stdin.read():
                await process.stdout.write(chunk)
            continue
        try:
            await process.stdout.write(process.files.read(name, cwd=process.cwd, who=process.who))
        except OSError as error:
            code = await process.complain(f"{name}: {error.strerror}")
    return code


async def head(process: Process) -> int:
    """`head -c NUMBER [FILE]` and `head -n NUMBER [FILE]`."""
    option, number, *files = process.argv[1:]
    left = int(number)
    source = _source(process, files[0]) if files else process.stdin
    while left > 0 and (chunk := await source.read()):
        if option == "-c":
            await process.stdout.write(chunk[:left])
            left -= len(chunk)
            continue
        for line in chunk.splitlines(keepends=True)[:left]:
            await process.stdout.write(line)
            left -= 1
    return 0


class _Rest:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        data, self._data = self._data, b""
        return data


def _source(process: Process, name: str) -> Source:
    node = process.files.stat(name, cwd=process.cwd)
    if node.type == "device" and node.target == "zero":
        return Zeros()
    return _Rest(process.files.read(name, cwd=process.cwd, who=process.who))


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


async def ls(process: Process) -> int:
    """`ls [-aAd1] [PATH…]`: names, one a line."""
    options, paths = _options(process.argv[1:])
    code = 0
    for path in paths or ["."]:
        try:
            if "d" in options or not process.files.stat(path, cwd=process.cwd).is_dir:
                process.files.stat(path, cwd=process.cwd, follow="d" not in options)
                await process.say(f"{path}\n")
                continue
            for name in process.files.list(path, cwd=process.cwd, who=process.who):
                if not name.startswith(".") or options & {"a", "A"}:
                    await process.say(f"{name}\n")
        except OSError as error:
            code = 2 * await process.complain(f"cannot access '{path}': {error.strerror}")
    return code


async def stat(process: Process) -> int:
    """`stat [-L] -c FORMAT PATH…` with %a, %u, %g, %s, %F, %U, %G, %n and %N."""
    options, words = _options(process.argv[1:])
    form, paths = words[0], words[1:]
    kinds = {"dir": "directory", "symlink": "symbolic link", "device": "character special file"}
    users, groups = names(process.files, "/etc/passwd"), names(process.files, "/etc/group")
    for path in paths:
        node = process.files.stat(path, cwd=process.cwd, follow="L" in options)
        shown = f"'{path}' -> '{node.target}'" if node.type == "symlink" else f"'{path}'"
        empty = "regular empty file" if not node.content else "regular file"
        facts = {
            "a": f"{node.mode:o}",
            "u": str(node.uid),
            "g": str(node.gid),
            "s": str(len(node.content)),
            "F": kinds.get(node.type, empty),
            "U": users.get(node.uid, "UNKNOWN"),
            "G": groups.get(node.gid, "UNKNOWN"),
            "n": path,
            "N": shown,
        }
        await process.say(re.sub(r"%([auvgsFUGnN])", lambda m: facts[m[1]], form) + "\n")  # noqa: B023
    return 0


def names(files: Filesystem, table: str) -> dict[int, str]:
    """Names by number of /etc/passwd or /etc/group; empty when there is no such file."""
    if not files.exists(table):
        return {}
    lines = [line.split(":") for line in files.read(table).decode().splitlines()]
    return {int(line[2]): line[0] for line in lines if len(line) > 2}


async def identity(process: Process) -> int:
    """`id`, `id -u`, `id -g`, `id -un`, `id -gn`."""
    options, _ = _options(process.argv[1:])
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


async def mkdir(process: Process) -> int:
    """`mkdir [-p] [-m MODE] PATH…`."""
    words = list(process.argv[1:])
    mode = 0o777 & ~process.umask
    if "-m" in words:
        at = words.index("-m")
        mode = int(words[at + 1], 8)
        del words[at : at + 2]
    options, paths = _options(words)
    for path in paths:
        parts = [part for part in path.split("/") if part]
        above = "/" if path.startswith("/") else ""
        for number, part in enumerate(parts):
            above += part
            last = number == len(parts) - 1
            if "p" in options and process.files.exists(above, cwd=process.cwd):
                above += "/"
                continue
            if last or "p" in options:
                made = mode if last else 0o777 & ~process.umask
                node = Node("dir", made, process.who.uid, process.who.gid)
                process.files.add(above, node, cwd=process.cwd, who=process.who)
            above += "/"
    return 0


async def rm(process: Process) -> int:
    """`rm [-rf] PATH…`."""
    options, paths = _options(process.argv[1:])
    for path in paths:
        if not process.files.exists(path, cwd=process.cwd, follow=False):
            if "f" in options:
                continue
            return await process.complain(f"cannot remove '{path}': No such file or directory")
        if process.files.stat(path, cwd=process.cwd, follow=False).is_dir and not options & {"r", "R"}:
            return await process.complain(f"cannot remove '{path}': Is a directory")
        process.files.remove(path, cwd=process.cwd, who=process.who)
    return 0


async def rmdir(process: Process) -> int:
    """`rmdir PATH…`."""
    for path in process.argv[1:]:
        if process.files.list(path, cwd=process.cwd):
            return await process.complain(f"failed to remove '{path}': Directory not empty")
        process.files.remove(path, cwd=process.cwd, who=process.who)
    return 0


async def ln(process: Process) -> int:
    """`ln -s [-fn] TARGET PATH`."""
    options, (target, path) = _options(process.argv[1:])
    if "s" not in options:
        return await process.complain("only symbolic links can be made")
    if process.files.exists(path, cwd=process.cwd) and process.files.stat(path, cwd=process.cwd).is_dir:
        path = f"{path}/{posixpath.basename(target)}"
    if "f" in options and process.files.exists(path, cwd=process.cwd, follow=False):
        process.files.remove(path, cwd=process.cwd, who=process.who)
    node = Node("symlink", 0o777, process.who.uid, process.who.gid, target=target)
    process.files.add(path, node, cwd=process.cwd, who=process.who)
    return 0


async def readlink(process: Process) -> int:
    """`readlink [-f] PATH`."""
    options, (path,) = _options(process.argv[1:])
    if "f" in options:
        await process.say(process.files.resolve(path, cwd=process.cwd) + "\n")
        return 0
    node = process.files.stat(path, cwd=process.cwd, follow=False)
    if node.type != "symlink":
        return 1
    await process.say(node.target + "\n")
    return 0


async def mv(process: Process) -> int:
    """`mv SOURCE TARGET`."""
    _, (source, target) = _options(process.argv[1:])
    if process.files.exists(target, cwd=process.cwd) and process.files.stat(target, cwd=process.cwd).is_dir:
        target = f"{target}/{posixpath.basename(source)}"
    process.files.move(source, target, cwd=process.cwd, who=process.who)
    return 0


async def cp(process: Process) -> int:
    """`cp SOURCE TARGET`, of one file."""
    _, (source, target) = _options(process.argv[1:])
    node = process.files.stat(source, cwd=process.cwd)
    content = process.files.read(source, cwd=process.cwd, who=process.who)
    mode = node.mode & ~process.umask
    process.files.write(target, content, cwd=process.cwd, who=process.who, mode=mode)
    return 0


async def touch(process: Process) -> int:
    """`touch PATH…`."""
    mode = 0o666 & ~process.umask
    for path in process.argv[1:]:
        process.files.write(path, b"", cwd=process.cwd, who=process.who, mode=mode, append=True)
    return 0


async def chmod(process: Process) -> int:
    """`chmod OCTAL PATH…` and `chmod +x PATH…`."""
    mode, *paths = process.argv[1:]
    for path in paths:
        now = process.files.stat(path, cwd=process.cwd).mode
        new = now | 0o111 if mode in ("+x", "a+x") else int(mode, 8)
        process.files.change(path, cwd=process.cwd, who=process.who, mode=new)
    return 0


async def chown(process: Process) -> int:
    """`chown USER[:GROUP] PATH…`."""
    owner, *paths = process.argv[1:]
    if process.who.uid:
        return await process.complain("Operation not permitted")
    who = credentials(process.files, owner)
    for path in paths:
        process.files.change(path, cwd=process.cwd, uid=who.uid, gid=who.gid)
    return 0


def credentials(files: Filesystem, user: str) -> Credentials:
    """The ids that `USER[:GROUP]` stands for, by names or numbers. KeyError for an unknown name."""
    name, mark, group = user.partition(":")
    rows = []
    if files.exists("/etc/passwd"):
        rows = [line.split(":") for line in files.read("/etc/passwd").decode().splitlines()]
    row = next((r for r in rows if len(r) > 3 and name in (r[0], r[2])), None)
    if row is None and not name.isdecimal():
        if name != "root":
            raise KeyError(name)
        row = ["root", "x", "0", "0"]
    uid = int(row[2]) if row else int(name)
    gid = int(row[3]) if row else 0
    if mark:
        by_name = {group_name: number for number, group_name in names(files, "/etc/group").items()}
        gid = int(group) if group.isdecimal() else by_name[group]
    return Credentials(uid, gid)


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
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
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


def _options(words: Iterable[str]) -> tuple[set[str], list[str]]:
    """Letters of the options, and everything else."""
    letters: set[str] = set()
    others = []
    only_words = False
    for word in words:
        if word == "--":
            only_words = True
        elif word.startswith("-") and len(word) > 1 and not only_words:
            letters |= set(word[1:])
        else:
            others.append(word)
    return letters, others


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
