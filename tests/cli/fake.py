"""A client whose sandboxes are ordinary processes of this machine, for tests of the command line alone.

`FAKE_CLIENT` in the environment is a JSON object that scripts what it does; see FakeClient.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import pty
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandboxfile import errors
from sandboxfile.build.outdated import Outdated, OutdatedReport
from sandboxfile.build.project import Project
from sandboxfile.build.result import BuildResult, SnapshotInfo, VendorResult
from sandboxfile.core.digest import Digest
from sandboxfile.core.event import Notice, Outcome, Reporter, TaskFinished, TaskOutput, TaskStarted
from sandboxfile.core.layer import LayerKey
from sandboxfile.engine.base import Command, Completed, Stdio, Terminal
from sandboxfile.engines.linux.probe import Requirement
from sandboxfile.plan.model import Reconciled
from sandboxfile.plan.planner import plan
from sandboxfile.plan.reconcile import reconcile
from sandboxfile.spec.lock import LockedBase, Lockfile
from sandboxfile.spec.model import Check, RunStep, Sandboxfile, ScratchRequest
from sandboxfile.store.accounting import Account, Row
from sandboxfile.store.consistency import Checked, Problem, Remedy
from sandboxfile.store.gc import Garbage, Verdict
from sandboxfile.store.records import Done, PastBuild
from sandboxfile.store.sandboxes import SandboxInfo
from sandboxfile.store.sweep import Swept

SLUG = "demo-0123456789abcdef"


class FakeProcess:
    """A process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process, master: int | None, bridge: Any) -> None:
        self._process = process
        self._master = master
        self._bridge = bridge

    async def wait(self) -> Completed:
        code = await self._process.wait()
        if self._bridge is not None:
            await self._bridge
        return Completed(code if code >= 0 else 128 - code)

    async def kill(self, number: int) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def resize(self, terminal: Terminal) -> None:
        if self._master is not None:
            set_size(self._master, terminal)
            self._process.send_signal(signal.SIGWINCH)


class FakeSandbox:
    """Runs commands on this machine, without any isolation."""

    id = "fake"

    def __init__(self) -> None:
        self.closed = False
        self._processes: list[asyncio.subprocess.Process] = []

    async def spawn(self, command: Command, stdio: Stdio, *, terminal: Terminal | None = None) -> FakeProcess:
        record("spawn", argv=command.argv, env=dict(command.env), cwd=command.cwd, user=command.user)
        if terminal is None:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(command.env),
                stdin=stdio.stdin if stdio.stdin >= 0 else asyncio.subprocess.DEVNULL,
                stdout=stdio.stdout,
                stderr=stdio.stderr,
                start_new_session=True,
            )
            self._processes.append(process)
            return FakeProcess(process, None, None)
        master, slave = pty.openpty()
        set_size(master, terminal)
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env=dict(command.env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._processes.append(process)
        return FakeProcess(process, master, bridged(master, stdio))

    async def expose(self, port: int, *, host: str = "127.0.0.1", host_port: int = 0) -> str:
        if host_port == 1:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return f"http://{host}:{host_port or port}"

    async def connect(self, port: int) -> int:
        import socket

        peer = socket.create_connection(("127.0.0.1", port))
        return peer.detach()

    async def close(self) -> None:
        if not self.closed:
            record("closed")
            for process in self._processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        self.closed = True


def bridged(master: int, stdio: Stdio) -> asyncio.Future[None]:
    """Copy bytes between a pseudo-terminal and the caller's descriptors until the other side ends."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def out() -> None:
        try:
            piece = os.read(master, 65536)
        except OSError:
            piece = b""
        if piece:
            os.write(stdio.stdout, piece)
            return
        loop.remove_reader(master)
        loop.remove_reader(stdio.stdin)
        over.set_result(None)

    loop.add_reader(master, out)
    loop.add_reader(stdio.stdin, lambda: os.write(master, os.read(stdio.stdin, 65536)))
    return over


def set_size(descriptor: int, terminal: Terminal) -> None:
    """Set a terminal's size."""
    size = struct.pack("HHHH", terminal.rows, terminal.columns, 0, 0)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)


def record(what: str, **values: Any) -> None:
    """Note a call in the file FAKE_RECORD, for the test to read."""
    path = os.environ.get("FAKE_RECORD")
    if path:
        with open(path, "a") as file:
            file.write(json.dumps([what, values]) + "\n")


class FakeClient:
    """What the script may say:

    raise: {verb: name of a scenario of `scenario`}
    config: the configuration of the one snapshot
    events: whether a build reports work
    wait: whether a build waits forever (`stubborn`: even when it is cancelled)
    unchanged, settled, empty, log, lock, requirements: what the verbs find
    """

    def __init__(
        self,
        *,
        home: Path | None = None,
        engine: str = "linux",
        reporter: Reporter | None = None,
        runtime: str | None = None,
        vendor: Path | None = None,
    ) -> None:
        self.script: dict[str, Any] = json.loads(os.environ.get("FAKE_CLIENT", "{}"))
        assert reporter is not None
        self.reporter = reporter
        self.home = home

    def _may_raise(self, verb: str) -> None:
        name = self.script.get("raise", {}).get(verb)
        if name:
            raise scenario(name)

    def load(
        self,
        file: Path | None = None,
        *,
        directory: Path | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Project:
        self._may_raise("load")
        record("load", file=str(file), cwd=os.getcwd(), params=dict(params or {}))
        document = Sandboxfile(
            name="demo",
            base=ScratchRequest(),
            run=(RunStep("make all"),),
            verify=(Check(run="test -e /made"),),
        )
        return Project(Path("Sandboxfile"), Path.cwd(), document)

    async def lock(
        self,
        project: Project,
        *,
        update: Sequence[str] | None = None,
        security: bool = False,
        refresh: bool = False,
        offline: bool = False,
        accept_older: bool = False,
        squash: bool = False,
    ) -> tuple[Lockfile, tuple[str, ...]]:
        record(
            "lock",
            update=update,
            security=security,
            refresh=refresh,
            offline=offline,
            accept_older=accept_older,
            squash=squash,
        )
        return LOCK, ("+ jq 1.7.1-6",) if not self.script.get("settled") else ()

    async def outdated(
        self, project: Project, *, refresh: bool = False, offline: bool = False
    ) -> OutdatedReport:
        record("outdated", refresh=refresh, offline=offline)
        if self.script.get("settled"):
            return OutdatedReport((), 80)
        return OutdatedReport(
            (
                Outdated("base", "zlib1g", "base", "1.0", "1.1", security=True, hidden_by="apt-2"),
                Outdated("apt", "jq", "apt-1", "1.7", "1.8", security=True),
                Outdated("apt", "tree", "apt-1", "2.1", "2.2"),
                Outdated("pip", "idna", "pip-1", "3.9", None, withdrawn=True),
            ),
            80,
            ("six: the package index does not answer",),
        )

    def unchanged(
        self,
        file: Path | None = None,
        *,
        directory: Path | None = None,
        params: Mapping[str, str] | None = None,
    ) -> BuildResult | None:
        return BuildResult(SLUG, (), ("base", "run-1"), (), 0.0) if self.script.get("unchanged") else None

    def layer(self, key: str) -> None:
        return None

    def check_lock(self, project: Project) -> None:
        self._may_raise("check_lock")

    async def plan(
        self,
        project: Project,
        *,
        locked: bool = False,
        offline: bool = False,
        force: Sequence[str] = (),
        since: str | None = None,
    ) -> Reconciled:
        self._may_raise("plan")
        planned = plan(project.sandboxfile, LOCK, ())
        return reconcile(
            planned, have=(), blobs=(), passed=(), published=False, previous=None, force=frozenset(force)
        )

    async def build(
        self,
        project: Project,
        *,
        locked: bool = False,
        offline: bool = False,
        force: Sequence[str] = (),
        expect_cached: bool = False,
    ) -> BuildResult:
        record("build", locked=locked, offline=offline, force=list(force))
        if expect_cached:
            raise errors.CacheMiss(
                "`run-1` would have to be built: command: a -> b",
                "run-1",
                "command: a -> b",
                details=("command: a -> b",),
            )
        if self.script.get("wait"):
            record("waiting")
            try:
                await asyncio.Event().wait()
            finally:
                record("cancelled")
                if self.script["wait"] == "stubborn":
                    await asyncio.Event().wait()
        if self.script.get("events"):
            self.reporter.emit(TaskStarted("layer:run-1", "run: make all"))
            self.reporter.emit(TaskOutput("layer:run-1", "making \x1b]0;owned\x07it\n"))
            if self.script["events"] == "failed":
                self.reporter.emit(TaskFinished("layer:run-1", Outcome.FAILED, "exited with 3"))
                raise scenario("step")
            self.reporter.emit(Notice("warning", "the clock is odd"))
            self.reporter.emit(TaskFinished("layer:run-1", Outcome.DONE, "3 files, 1.2 kB"))
        self._may_raise("build")
        return BuildResult(
            SLUG, ("run-1",), ("base",), ("verify-1",), 2.0, tuple(self.script.get("lock", ()))
        )

    async def vendor(
        self,
        project: Project,
        place: Path | None = None,
        *,
        check: bool = False,
        locked: bool = False,
        offline: bool = False,
    ) -> VendorResult:
        record("vendor", place=str(place), check=check, locked=locked, offline=offline)
        path = str(place or project.directory / "sandboxfile.vendor")
        if self.script.get("settled"):
            return VendorResult(path, files=3, size=1200)
        return VendorResult(path, ("apt/jq.deb",), ("pip/old.whl",), ("pip/bad.whl",), 3, 1200)

    async def verify(self, project: Project) -> tuple[str, ...]:
        self._may_raise("verify")
        return ("verify-1",)

    async def resolve_snapshot(self, target: str, project: Project | None = None) -> SnapshotInfo:
        record("resolve", target=target)
        return self.snapshot(target)

    async def start(self, snapshot: SnapshotInfo, *, network: str | None = None) -> FakeSandbox:
        record("start", slug=snapshot.slug, network=network)
        self._may_raise("start")
        return FakeSandbox()

    def announce(self, sandbox: FakeSandbox, url: str) -> None:
        record("announce", url=url)

    def running_sandboxes(self) -> tuple[SandboxInfo, ...]:
        if self.script.get("empty"):
            return ()
        return (
            SandboxInfo("sbx_loc_two", SLUG, 1000.0, {}, 2000.0, "http://127.0.0.1:1", 7, True),
            SandboxInfo("sbx_loc_one", SLUG, 1000.0, client=42),
        )

    async def debug(self, project: Project) -> tuple[FakeSandbox, Command, str]:
        command = Command(("/bin/sh", "-ec", "false; echo 'not reached'"), {"PATH": os.environ["PATH"]}, "/")
        return FakeSandbox(), command, "the step `run-1` exited with 1"

    def stored_snapshots(self) -> tuple[SnapshotInfo, ...]:
        return () if self.script.get("empty") else (self.snapshot(SLUG),)

    def snapshot(self, slug: str) -> SnapshotInfo:
        if slug not in (SLUG, "demo"):
            raise errors.NoSuchSnapshot(f"no snapshot is called `{slug}`", hint=f"did you mean `{SLUG}`?")
        return SnapshotInfo(
            SLUG,
            "demo",
            "sha256:" + "0" * 64,
            ("sha256:" + "1" * 64,),
            self.script.get("config", {}),
            1_400_000,
        )

    async def remove_snapshot(self, slug: str) -> None:
        record("removed", slug=slug)

    def find_layer(self, digits: str) -> None:
        return None

    def layer_log(self, key: str) -> str | None:
        return "made\n" if self.script.get("log") else None

    async def disk_usage(self, by: str = "kind") -> Account:
        record("du", by=by)
        rows = (
            Row("layers: apt", 2, 0, 437_000_000, 400_000_000, 1_700_000_000.0),
            Row("logs", size=1200),
        )
        return Account(by, rows, 437_001_200)

    async def gc(self, **options: Any) -> Swept:
        record("gc", **options)
        verdicts = (
            Verdict("layers", KEY, "apt-1", 1_000_000, True, "nothing needs it"),
            Verdict("layers", KEY[:-1] + "0", "base", 2, False, "the snapshot demo-1 needs it"),
        )
        garbage = Garbage(layers=(LayerKey(Digest(KEY)),), verdicts=verdicts)
        return Swept(garbage, {"layers": 1_000_000, "logs": 0, "total": 1_000_000})

    async def check_store(self, **options: Any) -> Checked:
        record("check", **options)
        problem = Problem("layer", KEY, "`apt-1`: its directory is missing", Remedy.REPAIR)
        looked_at = {"layers": 3, "snapshots": 1}
        if options["repair"]:
            return Checked(repaired=(problem,), looked_at=looked_at)
        return Checked((problem,) if self.script.get("damaged") else (), (), ("trash/x",), looked_at)

    def builds(self, project: Project) -> tuple[PastBuild, ...]:
        return () if self.script.get("empty") else (PAST,)

    def past_build(self, project: Project, which: str) -> PastBuild:
        if which != "1":
            raise errors.UsageError(f"no build `{which}` of this environment is remembered")
        return PAST

    def has_layer(self, key: str) -> bool:
        return False

    def eviction(self, key: str) -> None:
        return None

    async def close(self) -> None:
        record("close")

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


KEY = "sha256:" + "a" * 64
PAST = PastBuild(
    "demo",
    1,
    SLUG,
    {"run-1": LayerKey(Digest(KEY))},
    {"run-1": {"kind": "run", "definition": {"command": "make old", "parents": []}}},
    (
        Done(
            "run-1",
            "build",
            "definition-changed",
            "command: make -> make old",
            ("command: make -> make old",),
        ),
    ),
    1_700_000_000.0,
)
LOCK = Lockfile(base=LockedBase(request="scratch", kind="scratch", architecture="amd64", epoch=1_700_000_000))
LOOK = "look around with `sandboxfile debug`"
TEXT = "name: demo\nbase: scratch\nrun: [make all]\n"


def scenario(name: str) -> BaseException:
    """An error by name, as the layers below raise it."""
    source = errors.Source("Sandboxfile", TEXT)
    span = errors.Span(source, 3, 7, 8)
    step = errors.StepFailed(
        "`make all` exited with 3",
        layer="run-1",
        exit_code=3,
        workspace="kept-1",
        span=span,
        details=("making \x1b[31mit", "no rule"),
    )
    other = errors.StepFailed(
        "`test -e /made` exited with 1", layer="verify-1", exit_code=1, span=span, hint=LOOK
    )
    cases: dict[str, BaseException] = {
        "spec": errors.SpecError(
            (
                errors.Issue(
                    "unknown-key",
                    "unknown key `stesp`",
                    errors.Span(source, 2, 1, 4),
                    hint="did you mean `run`?",
                ),
                errors.Issue("bad-value", "`make all` is odd", span),
            )
        ),
        "step": step,
        "verify": errors.VerifyFailed("1 of 3 checks failed", (other,), hint=LOOK),
        "verify-two": errors.VerifyFailed("2 of 3 checks failed", (step, other)),
        "stale": errors.LockStale(
            "the lock is stale", ("apt: jq is not locked",), hint="run `sandboxfile lock`"
        ),
        "format": errors.LockFormatError("sandboxfile.lock was written by a newer version"),
        "fetch": errors.FetchError("http://mirror.example/x cannot be reached"),
        "store": errors.StoreError("the store cannot be written"),
        "host": errors.HostError("crun is missing", hint="apt-get install crun"),
        "capability": errors.MissingCapability("this engine has no terminal", "tty"),
        "plan": errors.PlanError("an input is not pinned"),
        "group": BaseExceptionGroup("several", [ValueError("noise"), step]),
        "full": OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        "denied": PermissionError(errno.EACCES, "Permission denied", "/data/y"),
        "bug": ZeroDivisionError("division by zero"),
    }
    return cases[name]


def fake_doctor() -> tuple[Requirement, ...]:
    """The requirements of the script."""
    script = json.loads(os.environ["FAKE_CLIENT"])
    return tuple(Requirement(*row) for row in script["requirements"])
