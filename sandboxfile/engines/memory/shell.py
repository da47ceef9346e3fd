"""The memory engine's shell: runs the tree that `syntax` makes."""

from __future__ import annotations

import re
from dataclasses import field

from sandboxfile.declared import dataclass, replace
from sandboxfile.engines.memory import syntax
from sandboxfile.engines.memory.machine import Process, Running
from sandboxfile.engines.memory.shellbuiltins import BUILTINS, Break, Continue, Leave, Streams
from sandboxfile.engines.memory.streams import Collected, Discard, Given, IntoFile, Pipe, Sink, Source, Zeros

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9?$!#@*]", re.ASCII)
_BLANKS = re.compile(r"[ \t\n]+")


async def shell(process: Process) -> int:
    """`sh [-eux] -c TEXT [NAME [ARG…]]`, `sh FILE [ARG…]`, or a script on stdin."""
    options = ""
    words = list(process.argv[1:])
    while words and words[0].startswith("-") and len(words[0]) > 1:
        options += words.pop(0)[1:]
    if "c" in options:
        if not words:
            return await process.complain("-c: a command is needed")
        text, arguments = words[0], words[1:] or [process.argv[0]]
    elif words:
        text = process.files.read(words[0], cwd=process.cwd, who=process.who).decode(
            "utf-8", "surrogateescape"
        )
        arguments = words
    else:
        text, arguments = (await process.read_all()).decode("utf-8", "surrogateescape"), ["sh"]
    runner = Shell(process, arguments, errexit="e" in options)
    return await runner.run(text, Streams(process.stdin, process.stdout, process.stderr))


@dataclass
class Shell:
    """The state of a shell. `arguments[0]` is its name."""

    process: Process
    arguments: list[str]
    errexit: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    status: int = 0
    background: list[Running] = field(default_factory=list)
    main: int = 0
    """The pid that `$$` stands for in a copy of a shell; 0 in the shell itself."""
    _lenient: int = field(default=0, init=False)
    """Above 0 while a condition is evaluated: a failure there ends nothing."""

    async def run(self, text: str, streams: Streams) -> int:
        """Run a script; the exit code."""
        try:
            return await self._script_code(syntax.parse(text), streams)
        except syntax.ShellSyntaxError as error:
            return await _refused(error, streams)

    async def _script_code(self, script: syntax.Script, streams: Streams) -> int:
        try:
            await self._script(script, streams)
        except Leave as leaving:
            return leaving.code
        except syntax.ShellSyntaxError as error:
            return await _refused(error, streams)
        except (Break, Continue):
            pass
        return self.status

    async def _script(self, script: syntax.Script, streams: Streams) -> None:
        for item in script.items:
            if item.background:
                quiet = replace(streams, stdin=Given())
                self.background.append(self._fork(syntax.Script((replace(item, background=False),)), quiet))
                self.status = 0
            else:
                await self._and_or(item, streams)

    async def _and_or(self, item: syntax.AndOr, streams: Streams) -> None:
        last = len(item.parts) - 1
        for number, (operator, pipeline) in enumerate(item.parts):
            if (operator == "&&" and self.status) or (operator == "||" and not self.status):
                continue
            self._lenient += number < last or pipeline.negated
            try:
                await self._pipeline(pipeline, streams)
            finally:
                self._lenient -= number < last or pipeline.negated
            if number == last and self.status and self.errexit and not self._lenient and not pipeline.negated:
                raise Leave(self.status)

    async def _pipeline(self, pipeline: syntax.Pipeline, streams: Streams) -> None:
        if len(pipeline.commands) == 1:
            await self._command(pipeline.commands[0], streams)
        else:
            await self._piped(pipeline.commands, streams)
        if pipeline.negated:
            self.status = 0 if self.status else 1

    async def _piped(self, commands: tuple[syntax.Node, ...], streams: Streams) -> None:
        running = []
        source: Source = streams.stdin
        for number, command in enumerate(commands):
            pipe = Pipe() if number < len(commands) - 1 else None
            reads = source if isinstance(source, Pipe) else None
            around = Streams(source, pipe or streams.stdout, streams.stderr)
            running.append(self._fork(_single(command), around, ends=pipe, abandons=reads))
            source = pipe or source
        codes = [await each.wait() for each in running]
        self.status = codes[-1]

    def _fork(
        self,
        script: syntax.Script,
        streams: Streams,
        *,
        ends: Pipe | None = None,
        abandons: Pipe | None = None,
    ) -> Running:
        """A copy of this shell as a process of its own."""
        child = replace(
            self.process,
            env=dict(self.process.env),
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
        )

        main_pid = self.main or self.process.pid

        async def main(process: Process) -> int:
            copy = replace(
                self, process=process, variables=dict(self.variables), background=[], main=main_pid
            )
            try:
                return await copy._script_code(script, streams)
            finally:
                if ends is not None:
                    await ends.end()
                if abandons is not None:
                    await abandons.abandon()

        return self.process.machine.spawn(child, main)

    async def _command(self, command: syntax.Node, streams: Streams) -> None:
        try:
            streams = await self._redirected(command.redirects, streams)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            await streams.stderr.write(f"sh: {place}{error.strerror}\n".encode("utf-8", "surrogateescape"))
            self.status = 2
            if self.errexit and not self._lenient:
                raise Leave(2) from None
            return
        if isinstance(command, syntax.Simple):
            await self._simple(command, streams)
        elif isinstance(command, syntax.Group):
            if command.subshell:
                self.status = await self._fork(command.body, streams).wait()
            else:
                await self._script(command.body, streams)
        elif isinstance(command, syntax.If):
            await self._if(command, streams)
        elif isinstance(command, syntax.While):
            await self._while(command, streams)
        else:
            await self._for(command, streams)

    async def _holds(self, condition: syntax.Script, streams: Streams) -> bool:
        self._lenient += 1
        try:
            await self._script(condition, streams)
        finally:
            self._lenient -= 1
        return self.status == 0

    async def _if(self, command: syntax.If, streams: Streams) -> None:
        for condition, body in command.branches:
            if await self._holds(condition, streams):
                await self._script(body, streams)
                return
        self.status = 0
        if command.otherwise is not None:
            await self._script(command.otherwise, streams)

    async def _while(self, command: syntax.While, streams: Streams) -> None:
        code = 0
        while await self._holds(command.condition, streams) != command.negated:
            try:
                await self._script(command.body, streams)
            except Continue:
                pass
            except Break:
                break
            code = self.status
        self.status = code

    async def _for(self, command: syntax.For, streams: Streams) -> None:
        self.status = 0
        for value in [word for raw in command.words for word in await self._expand(raw, streams)]:
            self.variables[command.name] = value
            try:
                await self._script(command.body, streams)
            except Continue:
                continue
            except Break:
                break

    async def _simple(self, command: syntax.Simple, streams: Streams) -> None:
        assigned = {}
        for raw in command.assignments:
            name, _, value = raw.partition("=")
            assigned[name] = " ".join(await self._expand(value, streams, split=False))
        words = [word for raw in command.words for word in await self._expand(raw, streams)]
        if not words:
            for name, value in assigned.items():
                self._set(name, value)
            if not any("$(" in raw for raw in command.assignments):
                self.status = 0
            return
        builtin = BUILTINS.get(words[0])
        if builtin is not None:
            self.status = await builtin(self, words, streams)
            return
        child = replace(
            self.process,
            argv=tuple(words),
            env={**self.process.env, **assigned},
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
        )
        self.status = await self.process.machine.spawn(child).wait()

    def _set(self, name: str, value: str) -> None:
        if name in self.process.env:
            self.process.env[name] = value
        else:
            self.variables[name] = value

    async def _redirected(self, redirects: tuple[syntax.Redirect, ...], streams: Streams) -> Streams:
        for redirect in redirects:
            target = "".join(await self._expand(redirect.target, streams, split=False))
            if redirect.operator == "<":
                streams = replace(streams, stdin=self._open(target))
                continue
            sink: Sink
            if redirect.operator == ">&":
                sink = streams.stderr if target == "2" else streams.stdout
            else:
                sink = self._into(target, append=redirect.operator == ">>")
            if redirect.descriptor == 2:
                streams = replace(streams, stderr=sink)
            else:
                streams = replace(streams, stdout=sink)
        return streams

    def _open(self, path: str) -> Source:
        process = self.process
        node = process.files.stat(path, cwd=process.cwd)
        if node.type == "device":
            return Zeros() if node.target == "zero" else Given()
        return Given(process.files.read(path, cwd=process.cwd, who=process.who))

    def _into(self, path: str, *, append: bool) -> Sink:
        process = self.process
        real = process.files.resolve(path, cwd=process.cwd)
        mode = 0o666 & ~process.umask
        process.files.write(real, b"", who=process.who, mode=mode, append=append)
        if process.files.stat(real).type == "device":
            return Discard()
        return IntoFile(process.files, real, process.who)

    async def _expand(self, raw: str, streams: Streams, *, split: bool = True) -> list[str]:
        """The fields of a raw word: quotes removed, variables and commands replaced."""
        fields: list[str] = []
        current: str | None = None
        at = 0
        quoted = False
        while at < len(raw):
            char = raw[at]
            if char == '"':
                quoted = not quoted
                current = current or ""
                at += 1
            elif char == "'" and not quoted:
                end = raw.index("'", at + 1)
                current = (current or "") + raw[at + 1 : end]
                at = end + 1
            elif char == "\\" and at + 1 < len(raw):
                following = raw[at + 1]
                keeps = quoted and following not in '$"\\`'
                if following != "\n":
                    current = (current or "") + ("\\" if keeps else "") + following
                at += 2
            elif char == "$":
                value, at = await self._dollar(raw, at, streams)
                if quoted or not split:
                    current = (current or "") + value
                    continue
                pieces = _BLANKS.split(value)
                if value and pieces[0] == "" and current is not None:
                    fields.append(current)
                    current = None
                for number, piece in enumerate(pieces):
                    if number and current is not None:
                        fields.append(current)
                        current = None
                    if piece:
                        current = (current or "") + piece
            else:
                current = (current or "") + char
                at += 1
        return fields if current is None else [*fields, current]

    async def _dollar(self, raw: str, at: int, streams: Streams) -> tuple[str, int]:
        if raw.startswith("$(", at):
            end = syntax.closing_parenthesis(raw, at + 2)
            collected = Collected()
            script = syntax.parse(raw[at + 2 : end - 1])
            self.status = await self._fork(script, replace(streams, stdout=collected)).wait()
            return collected.data.decode("utf-8", "surrogateescape").rstrip("\n"), end
        if raw.startswith("${", at):
            end = raw.index("}", at)
            name, mark, default = raw[at + 2 : end].partition(":-")
            value = self.value(name)
            return (default if mark and not value else value), end + 1
        found = _NAME.match(raw, at + 1)
        if found is None:
            return "$", at + 1
        return self.value(found[0]), found.end()

    def value(self, name: str) -> str:
        """A variable or a special parameter; empty when it is not set."""
        special = {
            "?": lambda: str(self.status),
            "$": lambda: str(self.main or self.process.pid),
            "!": lambda: str(self.background[-1].process.pid) if self.background else "",
            "#": lambda: str(len(self.arguments) - 1),
            "@": lambda: " ".join(self.arguments[1:]),
            "*": lambda: " ".join(self.arguments[1:]),
        }
        if name in special:
            return special[name]()
        if name.isdecimal():
            return self.arguments[int(name)] if int(name) < len(self.arguments) else ""
        return self.variables.get(name, self.process.env.get(name, ""))


async def _refused(error: syntax.ShellSyntaxError, streams: Streams) -> int:
    await streams.stderr.write(f"sh: syntax error: {error}\n".encode())
    return 2


def _single(command: syntax.Node) -> syntax.Script:
    return syntax.Script((syntax.AndOr((("", syntax.Pipeline((command,), False)),), False),))
