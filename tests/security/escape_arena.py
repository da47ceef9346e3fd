"""Where the attempts are made: a real sandbox for each, and the places where the same probes go through."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pty
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest
from escape_attempts import Attempt, Control

from sandboxfile.core.layer import LayerKey, RunLayer, TreeEntry, layer_key
from sandboxfile.engine.base import Command, Completed, Sandbox
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.engines.linux.netlink import addresses
from sandboxfile.errors import HostError

T = TypeVar("T")
SOURCE = Path(__file__).with_name("probes.c")
BIN = "/usr/local/bin"
ENV = {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
DEADLINE = 5.0
SECRET = "SANDBOXFILE_ESCAPE_SECRET"
_EPOCH = 1_700_000_000
_PREPARE = f"""\
cd {BIN}
cp probes rootprobes
chmod 4755 rootprobes
cp probes capprobes
probes file_caps {BIN}/capprobes
"""
_SPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc", "--cgroup")


@dataclass(frozen=True)
class Said:
    """How a command in a sandbox ended, and what it said."""

    completed: Completed
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Outcome:
    """What a probe said inside of a sandbox, and in its control."""

    inside: str
    control: str

    @property
    def refused(self) -> bool:
        """Whether the attempt failed inside."""
        return self.inside.startswith("refused")

    @property
    def proven(self) -> bool:
        """Whether the same probe goes through where the defence is off."""
        return self.control == "open"


class Arena:
    """An engine on a base with the probes in it; one for the session, with one event loop."""

    def __init__(
        self, engine: LinuxEngine, base: Sequence[LayerKey], probes: Path, facts: Mapping[str, str]
    ) -> None:
        self.engine = engine
        self.probes = probes
        self.facts = facts
        self._base = tuple(base)
        self._runner = asyncio.Runner()
        self._outcomes: dict[Attempt, Outcome] = {}

    def close(self) -> None:
        """End everything."""
        self.run(self.relayed.close())
        self.run(self.engine.close())
        self._runner.close()

    def start_helper(self) -> int:
        """Start the engine's helper; its process id."""
        self.run(self.engine.helper.start())
        process = self.engine.helper._process
        assert process is not None
        return process.pid

    def run(self, body: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self._runner.run(body)

    @cached_property
    def relayed(self) -> LinuxEngine:
        """An engine on the same store whose networks are relayed."""
        return LinuxEngine(self.engine.layers.home, full_network="relay")

    @cached_property
    def stack(self) -> tuple[LayerKey, ...]:
        """The base with the probes on top."""
        return (*self._base, self.run(self._make_layer()))

    async def _make_layer(self) -> LayerKey:
        digest = sha256(self.probes.read_bytes()).hexdigest()
        script = f"# {digest}\n{_PREPARE}"
        entry = TreeEntry(f"{BIN}/probes", "file", 0o755, sha256=digest, origin=str(self.probes))
        return await self.layer(script, (entry,))

    async def layer(self, script: str, entries: Sequence[TreeEntry] = (), network: str = "none") -> LayerKey:
        """Commit what a script does on the base, after entries were placed; the script is its identity."""
        definition = RunLayer(self._base, script, {}, "/", "root", network, (), _EPOCH)
        key = layer_key(definition)
        if not await self.engine.have([key]):
            workspace = await self.engine.prepare(self._base)
            await workspace.place(entries)
            said = await execute(workspace, "sh", "-ec", script, network=network)
            assert said.completed.exit_code == 0, said.stderr
            await workspace.commit(definition, key)
        return key

    def sandboxed(
        self, body: Callable[[Sandbox], Awaitable[T]], *, on: Sequence[LayerKey] | None = None, **options: Any
    ) -> T:
        """Run a coroutine with a sandbox of its own."""
        stack = tuple(on) if on else self.stack
        engine = self.engine
        if options.get("network") == "relayed":
            engine, options = self.relayed, {**options, "network": "full"}

        async def whole() -> T:
            sandbox = await engine.start(stack, **options)
            try:
                return await body(sandbox)
            finally:
                await sandbox.close()

        return self.run(whole())

    def outcome(self, attempt: Attempt) -> Outcome:
        """Make an attempt and its control, once a session."""
        if attempt not in self._outcomes:
            inside = self._inside(attempt)
            control = "not tried" if inside.startswith("no such sandbox") else self._control(attempt)
            self._outcomes[attempt] = Outcome(inside, control)
        return self._outcomes[attempt]

    def words(self, probe: Sequence[str]) -> list[str]:
        """A probe's words, with the facts of this host."""
        return [word.format_map(self.facts) for word in probe]

    def _inside(self, attempt: Attempt) -> str:
        argv = [f"{BIN}/{attempt.program}", *self.words(attempt.probe)]

        async def body(sandbox: Sandbox) -> str:
            return _answer(await execute(sandbox, *argv, user=attempt.user))

        try:
            return self.sandboxed(body, network=attempt.network)
        except HostError as error:
            return f"no such sandbox: {error.message}"

    def _control(self, attempt: Attempt) -> str:
        words = self.words(attempt.against or attempt.probe)
        if attempt.control is Control.STEP:
            return self.run(self._step(attempt, words))
        if attempt.control is Control.ROOT and os.geteuid() != 0:
            return "needs root"
        prefix: tuple[str, ...] = ()
        if attempt.control is Control.NAMESPACE:
            prefix = ("unshare", "--user", "--map-root-user", *_SPACES)
        elif attempt.control is Control.ROOT:
            prefix = ("unshare", *_SPACES)
        with open(self.facts["sentinel"]) as inherited:
            os.set_inheritable(inherited.fileno(), True)
            done = subprocess.run(
                [*prefix, self.probes, *words],
                capture_output=True,
                text=True,
                timeout=2 * DEADLINE,
                check=False,
                pass_fds=[inherited.fileno()] if attempt.probe == ("descriptors",) else [],
            )
        return done.stdout.strip() or f"failed: {done.stderr.strip() or done.returncode}"

    async def _step(self, attempt: Attempt, words: Sequence[str]) -> str:
        workspace = await self.engine.prepare(self.stack)
        try:
            said = await execute(workspace, f"{BIN}/{attempt.program}", *words, user=attempt.user)
            return _answer(said)
        finally:
            await workspace.abort()


async def execute(where: Any, *argv: str, stdin: bytes = b"", **options: Any) -> Said:
    """Run a command in a workspace or sandbox."""
    said = {"stdout": b"", "stderr": b""}

    def take(stream: str, data: bytes) -> None:
        said[stream] += data

    completed = await where.execute(Command(argv, options.pop("env", ENV), **options), take, stdin=stdin)
    return Said(completed, *(said[name].decode("utf-8", "replace") for name in ("stdout", "stderr")))


def _answer(said: Said) -> str:
    answer = said.stdout.strip()
    if answer in ("open", "") or not answer.startswith("refused"):
        return answer or f"failed: {said.stderr.strip() or said.completed}"
    return answer


def compile_probes(directory: Path) -> Path:
    """The probes as one program that needs no library."""
    program = directory / "probes"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("the escape suite compiles its probes: sudo apt-get install gcc libc6-dev")
    subprocess.run([str(compiler), "-O1", "-static", "-o", program, SOURCE], check=True)
    return program


@contextmanager
def facts(directory: Path) -> Iterator[dict[str, str]]:
    """Things on the host that attempts are aimed at, all of the tests' own."""
    with ExitStack() as undo:
        sentinel = directory / "sentinel"
        sentinel.write_text("of the host\n")
        program = directory / "program"
        shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
        yield {
            "sentinel": str(sentinel),
            "scratch": str(directory),
            "program": str(program),
            "secret": undo.enter_context(_secret()),
            "hostname": socket.gethostname(),
            "victim": str(undo.enter_context(_victim(sentinel))),
            "helper": "",
            "shm": str(undo.enter_context(_shared_memory())),
            "queue": undo.enter_context(_queue()),
            "pts": undo.enter_context(_terminal()),
            "disk": _first_disk(),
            "debug": _first("/sys/kernel/tracing", "/sys/kernel/debug"),
            "release_agent": _first(*(f"{each}/release_agent" for each in _hierarchies())),
            "cgroup": _first(*_hierarchies()),
            **undo.enter_context(_servers(directory)),
        }


@contextmanager
def _secret() -> Iterator[str]:
    os.environ[SECRET] = value = os.urandom(16).hex()
    yield value
    del os.environ[SECRET]


@contextmanager
def _victim(sentinel: Path) -> Iterator[int]:
    """A process that has a file open and the secret in its environment."""
    with open(sentinel) as held, subprocess.Popen(["sleep", "3600"], stdin=held) as process:
        yield process.pid
        process.kill()


@contextmanager
def _shared_memory() -> Iterator[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    key = int.from_bytes(os.urandom(3), "big") | 0x5B000000
    identifier = libc.shmget(key, 4096, 0o1600)
    assert identifier >= 0, os.strerror(ctypes.get_errno())
    yield key
    libc.shmctl(identifier, 0, None)


@contextmanager
def _queue() -> Iterator[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    name = f"/sandboxfile-{os.getpid()}"
    descriptor = libc.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    yield name
    os.close(descriptor)
    libc.mq_unlink(name.encode())


@contextmanager
def _terminal() -> Iterator[str]:
    # Numbers a sandbox would hardly reach with terminals of its own.
    pairs = [pty.openpty() for _ in range(8)]
    yield os.ttyname(pairs[-1][1])
    for descriptor in (each for pair in pairs for each in pair):
        os.close(descriptor)


@contextmanager
def _servers(directory: Path) -> Iterator[dict[str, str]]:
    """Servers on every address of the host, in the abstract name space and as a file."""
    abstract = f"@sandboxfile-{os.getpid()}"
    path = str(directory / "socket")
    network = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    listeners = [network]
    for address in ("\0" + abstract[1:], path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
        listeners.append(listener)
    threads = [threading.Thread(target=_serve, args=(each,)) for each in listeners]
    for thread in threads:
        thread.start()
    own = [each for each in addresses() if ":" not in each and not each.startswith("127.")]
    yield {
        "abstract": abstract,
        "socket": path,
        "port": str(network.getsockname()[1]),
        "own": own[0] if own else "192.0.2.1",
    }
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.close()


def _first_disk() -> str:
    for entry in sorted(os.scandir("/dev"), key=lambda entry: entry.name):
        if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode):
            return entry.path
    return "/dev/sda"


def _hierarchies() -> list[str]:
    top = "/sys/fs/cgroup"
    found = [entry.path for entry in os.scandir(top) if entry.is_dir()] if os.path.isdir(top) else []
    return [*sorted(path for path in found if os.path.exists(f"{path}/cgroup.procs")), top]


def _first(*paths: str) -> str:
    """The first path that exists and has something in it, else the first."""
    for path in paths:
        try:
            if os.path.isfile(path) or os.listdir(path):
                return path
        except OSError:
            continue
    return paths[0]
