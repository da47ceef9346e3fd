"""Programs of the memory engine that work on files."""

# Programs share one signature.

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from sandboxfile.engines.memory.accounts import credentials, names
from sandboxfile.engines.memory.filesystem import Node
from sandboxfile.engines.memory.machine import Process
from sandboxfile.engines.memory.streams import Source, Zeros


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


async def ls(process: Process) -> int:
    """`ls [-aAd1] [PATH…]`: names, one a line."""
    options, paths = options_of(process.argv[1:])
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
    options, words = options_of(process.argv[1:])
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
        await process.say(re.sub(r"%([augsFUGnN])", lambda m: facts[m[1]], form) + "\n")  # noqa: B023
    return 0


async def mkdir(process: Process) -> int:
    """`mkdir [-p] [-m MODE] PATH…`."""
    words = list(process.argv[1:])
    mode = 0o777 & ~process.umask
    if "-m" in words:
        at = words.index("-m")
        mode = int(words[at + 1], 8)
        del words[at : at + 2]
    options, paths = options_of(words)
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
    options, paths = options_of(process.argv[1:])
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
    options, (target, path) = options_of(process.argv[1:])
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
    options, (path,) = options_of(process.argv[1:])
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
    _, (source, target) = options_of(process.argv[1:])
    if process.files.exists(target, cwd=process.cwd) and process.files.stat(target, cwd=process.cwd).is_dir:
        target = f"{target}/{posixpath.basename(source)}"
    process.files.move(source, target, cwd=process.cwd, who=process.who)
    return 0


async def cp(process: Process) -> int:
    """`cp SOURCE TARGET`, of one file."""
    _, (source, target) = options_of(process.argv[1:])
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


def options_of(words: Iterable[str]) -> tuple[set[str], list[str]]:
    """The letters of the options among the words, and the other words."""
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
