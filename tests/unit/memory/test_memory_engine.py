"""The memory engine beyond the promises: scripts, faults, its shell."""

from __future__ import annotations

import asyncio
import errno
import io
import tarfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sandboxfile.core.layer import DebianBase, LayerKey, PackagePin, RootfsBase, ScratchBase, layer_key
from sandboxfile.engine.base import Command
from sandboxfile.engines.memory.engine import MemoryEngine, Scripted
from sandboxfile.engines.memory.faults import FaultPlan, Point, cancelled
from sandboxfile.engines.memory.machine import Process
from sandboxfile.engines.memory.syntax import ShellSyntaxError, parse
from sandboxfile.errors import BuildError, EngineError
from sandboxfile.testing.promise import Lab, Outcome

BASE = DebianBase("trixie", "amd64", (PackagePin("apt", "3.0", "amd64", "a" * 64),), 5)
KEY = layer_key(BASE)


async def based(engine: MemoryEngine) -> MemoryEngine:
    workspace = await engine.bootstrap(BASE, {"a" * 64: Path("unused")}, lambda stream, data: None)
    await workspace.commit(BASE, KEY)
    return engine


def in_lab(trial: Callable[[Lab], Coroutine[Any, Any, None]], **given: Any) -> MemoryEngine:
    engine = MemoryEngine(**given)

    async def main() -> None:
        await based(engine)
        async with Lab(engine, (KEY,)) as lab:
            await trial(lab)
        await engine.close()

    asyncio.run(main())
    return engine


def shell(text: str, **given: Any) -> Outcome:
    found: list[Outcome] = []

    async def trial(lab: Lab) -> None:
        found.append(await lab.run(await lab.sandbox(), text))

    in_lab(trial, **given)
    return found[0]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo a; echo b", "a\nb\n"),
        ("false || echo or; true && echo and", "or\nand\n"),
        ("! false && echo negated", "negated\n"),
        ("if false; then echo 1; elif true; then echo 2; else echo 3; fi", "2\n"),
        ("for x in a 'b c'; do echo \"<$x>\"; done", "<a>\n<b c>\n"),
        ("x='a b'; printf '<%s>' $x \"$x\"", "<a><b><a b>"),
        ("echo ${NONE:-default} $(echo sub | cat)", "default sub\n"),
        ("until [ -e /tmp/x ]; do touch /tmp/x; echo once; done", "once\n"),
        ("(cd /usr; pwd); pwd", "/usr\n/\n"),
        ("{ echo out; echo err >&2; } 2>&1 | wc -l", "2\n"),
        ("A=1 env | cat | head -n 1; export B=2; sh -c 'echo $B'", "PATH="),
        ("echo one > /tmp/f; echo two >> /tmp/f; cat < /tmp/f", "one\ntwo\n"),
        ("sh -c 'echo $0 $1 $#' name first second", "name first 2\n"),
        ("printf 'echo from a script $1' > /tmp/s; chmod +x /tmp/s; sh /tmp/s x", "from a script x\n"),
        ("printf '#!/bin/sh\\necho ran\\n' > /tmp/s; chmod 755 /tmp/s; /tmp/s", "ran\n"),
        ("echo $? ; (exit 4); echo $?", "0\n4\n"),
        ("sleep 0 & wait $!; echo $?", "0\n"),
        ("while true; do break; done; echo out # and a comment", "out\n"),
        ('echo a\\\nb "c\\"d" \'e\'f', 'ab c"d ef\n'),
        ("seq 3 | while true; do cat; break; done", "1\n2\n3\n"),
    ],
)
def test_the_shell_does_what_sh_does(script: str, expected: str) -> None:
    assert shell(script).stdout.decode().startswith(expected)


def test_errexit_ends_a_script_but_not_in_a_condition() -> None:
    outcome = shell("set -e; if false; then :; fi; false || true; echo on; false; echo never")
    assert (outcome.exit_code, outcome.stdout) == (1, b"on\n")


@pytest.mark.parametrize(
    "script", ["f() { :; }", "case x in x) ;; esac", "echo $((1+1))", "cat <<E", "echo `ls`"]
)
def test_what_the_shell_does_not_know_is_refused(script: str) -> None:
    outcome = shell(script)
    assert outcome.exit_code == 2
    assert b"syntax error" in outcome.stderr


@pytest.mark.parametrize("script", ["'", '"', "$(", "if true", "for", "a &&", "| a", ")", "{ a", "> "])
def test_broken_scripts_are_syntax_errors(script: str) -> None:
    with pytest.raises(ShellSyntaxError):
        parse(script)


def test_commands_can_be_scripted_by_their_text() -> None:
    script = {
        "pip --version": "pip 25\n",
        "make all": Scripted(3, "", "no rule\n", files={"/opt/built": "x"}),
    }
    assert shell("pip --version", script=script).stdout == b"pip 25\n"
    outcome = shell("make all", script=script)
    assert (outcome.exit_code, outcome.stderr) == (3, b"no rule\n")

    async def trial(lab: Lab) -> None:
        sandbox = await lab.sandbox()
        await lab.run(sandbox, ["make", "all"])
        assert await lab.succeed(sandbox, "cat /opt/built") == "x"

    in_lab(trial, script=script)


def test_programs_are_coroutines() -> None:
    async def greet(process: Process) -> int:
        await process.say(f"hello {process.argv[1]} on {process.network}\n")
        return 0

    assert shell("greet you | cat", programs={"greet": greet}).stdout == b"hello you on none\n"


def test_a_bootstrapped_base_says_what_is_installed() -> None:
    assert b"Package: apt\n" in shell("cat /var/lib/dpkg/status").stdout


def test_a_base_needs_its_packages() -> None:
    with pytest.raises(BuildError, match="packages of the base are missing: apt"):
        asyncio.run(MemoryEngine().bootstrap(BASE, {}, lambda stream, data: None))


def test_a_tar_is_a_base(tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    with tarfile.open(archive, "w") as tar:
        for name, kind, target in (("./etc", tarfile.DIRTYPE, ""), ("./etc/link", tarfile.SYMTYPE, "name")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, target, 0o755
            tar.addfile(member)
        member = tarfile.TarInfo("./etc/name")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"tar"))

    async def main() -> bytes:
        engine = MemoryEngine()
        workspace = await engine.unpack(RootfsBase("a" * 64, 5), archive, lambda stream, data: None)
        return await workspace.read("/etc/link")

    assert asyncio.run(main()) == b"tar"
    archive.write_bytes(b"no tar")
    with pytest.raises(BuildError, match=r"the root filesystem base.tar cannot be read"):
        asyncio.run(main())


def test_a_tar_cannot_lead_out_of_itself(tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("../../escape"))
    with pytest.raises(BuildError, match="leads out of it"):
        asyncio.run(MemoryEngine().unpack(RootfsBase("a" * 64, 5), archive, lambda stream, data: None))


async def build(engine: MemoryEngine) -> LayerKey:
    """What a builder does with a layer: prepare, execute, commit, and abort when that fails."""
    workspace = await engine.prepare((KEY,))
    try:
        outputs: list[bytes] = []
        command = Command(("/bin/sh", "-ec", "echo start; echo x > /opt/x; echo end"), {"PATH": "/usr/bin"})
        completed = await workspace.execute(command, lambda stream, data: outputs.append(data))
        if completed.exit_code:
            raise BuildError(b"".join(outputs).decode())
        definition = ScratchBase(parents=(KEY,))
        return (await workspace.commit(definition, layer_key(definition))).key
    except BaseException:
        await workspace.abort()
        raise


FAULTS: dict[str, Callable[[], Any]] = {
    "raise": lambda: EngineError("the engine broke"),
    "cancel": lambda: cancelled,
    "disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("point", Point)
def test_after_a_fault_nothing_is_left_and_a_second_try_succeeds(point: Point, kind: str) -> None:
    async def main() -> None:
        engine = await based(MemoryEngine())
        engine.faults = FaultPlan({point: FAULTS[kind]()})
        with pytest.raises((EngineError, BuildError, OSError, asyncio.CancelledError)):
            await build(engine)
        assert engine.faults.reached[point]
        engine.faults = FaultPlan()
        assert engine.workspaces == ()
        key = layer_key(ScratchBase(parents=(KEY,)))
        assert (key in await engine.have([key])) == (point is Point.AFTER_RENAME)
        assert await build(engine) == key
        assert await engine.have([KEY, key]) == {KEY, key}
        await engine.close()

    asyncio.run(main())


def test_a_fault_can_wait_for_a_later_time() -> None:
    plan = FaultPlan({Point.NO_SPACE: EngineError("full")}, after=2)
    plan.hit(Point.NO_SPACE)
    plan.hit(Point.NO_SPACE)
    with pytest.raises(EngineError, match="full"):
        plan.hit(Point.NO_SPACE)
    plan.hit(Point.NO_SPACE)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda lab: lab.run_as("ghost"), "the user `ghost` is not known"),
        (lambda lab: lab.reopen(), "there is no kept workspace w-99"),
    ],
)
def test_mistakes_are_engine_errors(use: Callable[[Any], Awaitable[Any]], message: str) -> None:
    class Trying(Lab):
        async def run_as(self, user: str) -> Outcome:
            return await self.run(await self.sandbox(), "true", user=user)

        async def reopen(self) -> object:
            return await self.engine.reopen("w-99")

    async def main() -> None:
        async with Trying(await based(MemoryEngine()), (KEY,)) as lab:
            with pytest.raises(EngineError, match=message):
                await use(lab)

    asyncio.run(main())
