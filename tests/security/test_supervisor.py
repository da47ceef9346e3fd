"""Attempts on what supervises a sandbox: the runtime's program, working directories, the client."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from escape_arena import BIN, DEADLINE, ENV, Arena, execute

from sandboxfile.core.layer import LayerKey, RunLayer, TreeEntry, layer_key
from sandboxfile.engine.base import Sandbox
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import EngineError

pytestmark = pytest.mark.host


@pytest.mark.skipif(not shutil.which("crun"), reason="crun is not installed")
def test_the_runtime_is_not_overwritten_through_its_own_program(arena: Arena, tmp_path: Path) -> None:
    """CVE-2019-5736: a command that is `#!/proc/self/exe` makes the runtime run itself inside."""
    runtime = tmp_path / "crun"
    shutil.copy(shutil.which("crun") or "", runtime)
    # Whoever gets hold of the file may write: only that nobody does is left as defence.
    runtime.chmod(0o777)
    before = runtime.read_bytes()
    engine, stack = LinuxEngine(arena.engine.layers.home, runtime=str(runtime)), arena.stack

    async def body() -> str:
        try:
            sandbox = await engine.start(stack)
            bait = f"printf '#!/proc/self/exe\\n' > /tmp/bait; chmod 755 /tmp/bait; cp /tmp/bait {BIN}/true"
            await execute(sandbox, "sh", "-c", bait)
            argv = (f"{BIN}/probes", "overwrite", "", "2000")
            hunting = asyncio.ensure_future(execute(sandbox, *argv, timeout=DEADLINE))
            while not hunting.done():
                try:
                    await execute(sandbox, "/tmp/bait", timeout=DEADLINE)
                except EngineError:
                    continue  # the runtime, run inside, has nothing sensible to do
            return (await hunting).stdout
        finally:
            await engine.close()

    assert arena.run(body()).startswith("refused")
    assert runtime.read_bytes() == before


def test_a_program_is_overwritten_where_nothing_is_sealed(arena: Arena) -> None:
    """The control of the test above."""
    program = arena.facts["program"]
    with subprocess.Popen([program, "1"]):
        argv = [arena.probes, "overwrite", program, "4000"]
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert said == "open\n"


def test_no_working_directory_leads_out(arena: Arena) -> None:
    """CVE-2024-21626: a descriptor that the runtime forgot to close, as the directory to start in."""
    sentinel = arena.facts["sentinel"]
    argv = ("cat", f"../../../../../../../..{sentinel}")

    async def body(sandbox: Sandbox) -> list[str]:
        answers = []
        await execute(sandbox, "sh", "-c", "for n in $(seq 3 32); do ln -s /proc/self/fd/$n /tmp/$n; done")
        for place in [f"/proc/self/fd/{n}" for n in range(3, 33)] + [f"/tmp/{n}" for n in range(3, 33)]:
            said = await execute(sandbox, *argv, cwd=place)
            assert said.completed.exit_code != 0
            answers.append(said.stdout)
        return answers

    assert set(arena.sandboxed(body)) == {""}
    descriptor = os.open("/", os.O_RDONLY)
    control = subprocess.run(
        argv, cwd=f"/proc/self/fd/{descriptor}", pass_fds=[descriptor], capture_output=True, check=False
    )
    os.close(descriptor)
    assert control.stdout == Path(sentinel).read_bytes()


def test_links_lead_no_reader_out(arena: Arena) -> None:
    """A step leaves links to files of the host where the client reads."""
    sentinel = arena.facts["sentinel"]

    stack = arena.stack

    async def body() -> list[str]:
        workspace = await arena.engine.prepare(stack)
        answers = []
        try:
            places = [sentinel, f"/../..{sentinel}", f"/proc/self/root{sentinel}", f"/proc/1/root{sentinel}"]
            for number, target in enumerate(places):
                link = f"/tmp/link{number}"
                await execute(workspace, "ln", "-s", target, link)
                for path in (link, target):
                    try:
                        answers.append((await workspace.read(path)).decode())
                    except (OSError, EngineError):
                        continue
            return answers
        finally:
            await workspace.abort()

    assert arena.run(body()) == []


@pytest.mark.parametrize("point", ["/proc", "/sys", "/dev", "/run/secrets", "/run/sandboxfile", "/run"])
def test_a_mountpoint_that_is_a_link_leads_no_mount_out(arena: Arena, tmp_path: Path, point: str) -> None:
    """CVE-2021-30465 and its kin: the layer has a link to the host where the runtime mounts."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    (outside / "here").write_text("of the host\n")

    layer = arena.run(replaced(arena, arena.stack, point, str(outside)))

    async def body(sandbox: Sandbox) -> str:
        said = await execute(sandbox, "cat", f"{point}/here", secrets={"token": b"secret"})
        return said.stdout

    try:
        said = arena.sandboxed(body, on=(*arena.stack, layer))
    except EngineError:
        said = ""
    assert said == ""
    assert os.listdir(outside) == ["here"]


async def replaced(arena: Arena, stack: tuple[LayerKey, ...], point: str, target: str) -> LayerKey:
    """A layer where a path is a link."""
    definition = RunLayer(stack, f"ln -s {target} {point}", {}, "/", "root", "none", (), 0)
    workspace = await arena.engine.prepare(stack)
    await workspace.remove(point)
    await workspace.place((TreeEntry(point, "symlink", 0, target=target),))
    key = layer_key(definition)
    await workspace.commit(definition, key)
    return key


def test_what_a_sandbox_writes_reaches_no_other(arena: Arena) -> None:
    async def write(sandbox: Sandbox) -> str:
        await execute(sandbox, "sh", "-c", "echo mine >> /etc/debian_version; echo mine > /usr/bin/env")
        return (await execute(sandbox, "cat", "/etc/debian_version")).stdout

    async def read(sandbox: Sandbox) -> str:
        return (await execute(sandbox, "cat", "/etc/debian_version", "/usr/bin/env")).stdout

    assert "mine" in arena.sandboxed(write)
    assert "mine" not in arena.sandboxed(read)


@pytest.mark.parametrize(
    "trap",
    [
        "rm /etc/passwd; mkfifo /etc/passwd",
        "ln -sf /dev/zero /etc/passwd",
        "rm /usr/bin/true; mkfifo /usr/bin/true",
    ],
)
def test_no_file_of_the_guest_makes_the_client_wait(arena: Arena, trap: str) -> None:
    async def body(sandbox: Sandbox) -> int:
        await execute(sandbox, "sh", "-c", trap)
        return (await asyncio.wait_for(execute(sandbox, "true"), DEADLINE)).completed.exit_code

    assert arena.sandboxed(body) in (0, 126, 127)


def test_the_first_process_survives_its_children(arena: Arena) -> None:
    async def body(sandbox: Sandbox) -> tuple[int, str]:
        await execute(sandbox, "sh", "-c", "kill -9 1; kill -STOP 1; kill -9 -1")
        said = await execute(sandbox, "echo", "alive")
        return said.completed.exit_code, said.stdout

    assert arena.sandboxed(body) == (0, "alive\n")


@pytest.mark.parametrize("privileged", [True, False], ids=["the client", "a command"])
def test_only_what_was_given_is_in_the_environment(arena: Arena, privileged: bool) -> None:
    async def body(sandbox: Sandbox) -> set[str]:
        where = "/proc/1/environ" if privileged else "/proc/self/environ"
        said = await execute(sandbox, "cat", where)
        return {entry.partition("=")[0] for entry in said.stdout.split("\0") if entry}

    assert arena.sandboxed(body) <= {*ENV, "HOME"}
