"""Limits: kept by the kernel, reported by name, and refused where nothing can keep them."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench, Place

from sandboxfile.engine.base import Capability, Command, Limits, SandboxOptions, Stdio
from sandboxfile.engines.linux.cgroups import Cgroups, freezer, hierarchies
from sandboxfile.engines.linux.limits import Enforcement, enforce
from sandboxfile.engines.linux.scope import enter, is_offered, manager
from sandboxfile.errors import EngineError, LimitNotEnforceable

pytestmark = pytest.mark.host

EAT = "perl -e '$x = \"a\" x 200_000_000; sleep 1000'"
FORKS = (
    "perl -e 'for (1..200) { my $p = fork; last unless defined $p; if (!$p) { sleep 1000 } $n++ } print $n'"
)


def need(bench: Bench, capability: Capability) -> None:
    if capability not in bench.engine.capabilities:
        pytest.skip(f"nothing here keeps {capability}")


def group_of(place: Place, controller: str) -> Path:
    """The control group that keeps a limit of a sandbox."""
    known = hierarchies()
    top = known.get(controller) or known.get("unified") or manager()
    return Path(top) / "sandboxfile" / place.where.id


async def start(bench: Bench, *, best_effort: bool = False, **limits: Any) -> Place:
    options = SandboxOptions(limits=Limits(**limits), best_effort=best_effort)
    return Place(await bench.engine.start(bench.base, options=options))


def test_memory_is_limited_and_said_to_be_what_ended_a_command(bench: Bench) -> None:
    need(bench, Capability.HARD_MEMORY)

    async def body() -> None:
        place = await start(bench, memory=64 << 20)
        said = await place.sh(EAT)
        assert (said.completed.exit_code, said.completed.limit) == (137, "memory")
        assert said.completed.out_of_memory
        ordinary = await place.sh("exit 3")
        assert (ordinary.completed.exit_code, ordinary.completed.limit) == (3, None)
        argv = ("sh", "-c", EAT)
        process = await place.where.spawn(Command(argv, place.env), Stdio())
        assert (await process.wait()).limit == "memory"

    bench.trial(body)


def test_limits_are_what_the_kernel_says_they_are(bench: Bench) -> None:
    need(bench, Capability.HARD_MEMORY)

    async def body() -> None:
        place = await start(bench, memory=64 << 20, cpus=0.5, pids=40)
        unified = (group_of(place, "memory") / "memory.max").exists()
        files = (
            {"memory": "memory.max", "cpu": "cpu.max", "pids": "pids.max"}
            if unified
            else {"memory": "memory.limit_in_bytes", "cpu": "cpu.cfs_quota_us", "pids": "pids.max"}
        )
        found = {name: (group_of(place, name) / file).read_text().split()[0] for name, file in files.items()}
        assert found == {"memory": str(64 << 20), "cpu": "50000", "pids": "40"}
        inside = (group_of(place, "memory") / "cgroup.procs").read_text().split()
        assert str(place.where.pid) in inside

    bench.trial(body)


def test_what_is_written_counts_as_memory(bench: Bench) -> None:
    need(bench, Capability.HARD_MEMORY)
    need(bench, Capability.HARD_DISK)

    async def body() -> None:
        place = await start(bench, memory=64 << 20)
        said = await place.sh("head -c 200000000 /dev/zero > /tmp/big")
        assert said.completed.limit == "memory"

    bench.trial(body)


def test_processors_are_limited(bench: Bench) -> None:
    need(bench, Capability.HARD_CPU)

    async def body() -> None:
        place = await start(bench, cpus=0.2)
        # The kernel counts how often the group had to wait for its next period.
        await place.sh("perl -e '$t = (times)[0] + 0.1; 1 while (times)[0] < $t'")
        text = (group_of(place, "cpu") / "cpu.stat").read_text().split()
        assert int(text[text.index("nr_throttled") + 1]) > 0

    bench.trial(body)


def test_processes_are_limited_for_all_users_together(bench: Bench) -> None:
    async def body() -> None:
        first, second = await start(bench, pids=40), await start(bench, pids=40)
        for place in (first, second):
            counted = 0
            for user in ("root", "nobody", "1000", "1001"):
                said = await place.run("sh", "-c", f"exec {FORKS}", user=user)
                counted += int(said.stdout or 0)
                if user != "root":
                    assert (said.completed.exit_code, said.completed.limit) == (126, "pids")
            # The init, and the commands themselves as long as they start, count as well.
            assert 25 <= counted <= 40, counted

    bench.trial(body)


def test_processes_are_limited_beside_memory(bench: Bench) -> None:
    need(bench, Capability.HARD_MEMORY)

    async def body() -> None:
        place = await start(bench, pids=40, memory=256 << 20)
        said = await place.run("sh", "-c", FORKS)
        assert 25 <= int(said.stdout) <= 40

    bench.trial(body)


def test_a_throw_away_layer_has_a_size_and_a_number_of_files(bench: Bench) -> None:
    need(bench, Capability.HARD_DISK)

    async def body() -> None:
        place = await start(bench, disk=8 << 20)
        said = await place.sh("head -c 20000000 /dev/zero > /opt/big || stat -c %s /opt/big; rm /opt/big")
        assert "No space left" in said.stderr
        assert int(said.stdout) <= 8 << 20
        script = 'mkdir /opt/d; cd /opt/d; perl -e \'open(F, ">f$_") or die "$!" for 1..20000\''
        assert "No space left" in (await place.sh(script)).stderr

    bench.trial(body)


def test_open_files_are_limited(bench: Bench) -> None:
    async def body() -> None:
        place = await start(bench, open_files=50)
        assert (await place.sh("ulimit -Hn; ulimit -n")).stdout == "50\n50\n"

    bench.trial(body)


def test_output_is_limited_and_ends_the_command(bench: Bench) -> None:
    async def body() -> None:
        place = await start(bench, output=100_000)
        said = await place.sh("yes")
        assert (said.completed.exit_code, said.completed.limit) == (137, "output")
        assert len(said.stdout) == 100_000
        both = await place.sh("head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2; sleep 1000")
        assert both.completed.limit == "output"
        assert len(both.stdout) + len(both.stderr) == 100_000
        exact = await place.sh("head -c 100000 /dev/zero")
        assert (exact.completed.exit_code, exact.completed.limit) == (0, None)
        left = await place.sh("ps aux 2>/dev/null || cat /proc/[0-9]*/comm")
        assert "yes" not in left.stdout

    bench.trial(body)


def test_the_time_of_a_sandbox_ends_everything_in_it(bench: Bench) -> None:
    async def body() -> None:
        options = SandboxOptions(timeout=0.7)
        place = Place(await bench.engine.start(bench.base, options=options))
        script = "setsid sh -c 'trap \"\" TERM; sleep 1000' & trap '' TERM; sleep 1000; sleep 1000"
        said = await place.sh(script)
        assert (said.completed.exit_code, said.completed.limit) == (137, "timeout")
        with pytest.raises(EngineError, match="time was over"):
            await place.sh("true")
        assert not place.where.alive

    bench.trial(body)


def test_the_time_is_kept_by_the_helper_while_the_client_is_busy(bench: Bench) -> None:
    async def body() -> None:
        sandbox = await bench.engine.start(bench.base, options=SandboxOptions(timeout=0.5))
        assert sandbox.pid is not None
        watched = os.pidfd_open(sandbox.pid)
        # The event loop of this client does not run meanwhile.
        assert select.select([watched], [], [], 30)[0]
        os.close(watched)
        assert not sandbox.alive

    bench.trial(body)


def test_more_time_can_be_given(bench: Bench) -> None:
    async def body() -> None:
        place = Place(await bench.engine.start(bench.base, options=SandboxOptions(timeout=1.0)))
        await place.where.extend(1000)
        said = await place.sh("sleep 1.5; echo done")
        assert said.stdout == "done\n"
        await place.where.extend(0.2)
        assert (await place.sh("sleep 1000")).completed.limit == "timeout"

    bench.trial(body)


def test_a_commands_own_time_is_named(bench: Bench) -> None:
    async def body() -> None:
        place = await start(bench)
        said = await place.sh("sleep 1000", timeout=0.3)
        assert said.completed.timed_out
        assert said.completed.limit == "timeout"
        assert (await place.sh("echo still")).stdout == "still\n"

    bench.trial(body)


NOTHING = {"groups": False, "memory_uppers": False, "throw_away": True}


@pytest.mark.parametrize(
    ("limits", "name"),
    [(Limits(memory=1 << 20), "memory"), (Limits(cpus=1.0), "cpus"), (Limits(disk=1 << 20), "disk")],
)
def test_what_nothing_can_keep_is_refused_by_name(limits: Limits, name: str) -> None:
    with pytest.raises(LimitNotEnforceable) as caught:
        enforce(limits, best_effort=False, **NOTHING)
    assert caught.value.limit == name
    assert "best-effort" in str(caught.value.hint)
    allowed = enforce(limits, best_effort=True, **NOTHING)
    assert len(allowed.warnings) == 1
    assert not allowed.grouped


@pytest.mark.parametrize("kind", ["v2", "v1", "hybrid", "none"])
def test_the_hosts_hierarchies_are_found(tmp_path: Path, kind: str) -> None:
    def group(name: str, **files: str) -> str:
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        for file, text in {"cgroup.procs": "1\n", **files}.items():
            (place / file.replace("__", ".")).write_text(text)
        return str(place)

    v1 = {name: group(name) for name in ("memory", "cpu", "pids")} if kind in ("v1", "hybrid") else {}
    if kind == "hybrid":
        group("unified", cgroup__controllers="", cgroup__subtree_control="")
    if kind == "v2":
        group(".", cgroup__controllers="cpuset cpu io memory pids\n", cgroup__subtree_control="\n")
    assert hierarchies(str(tmp_path)) == ({"unified": str(tmp_path)} if kind == "v2" else v1)
    expected = {"v2": str(tmp_path), "hybrid": f"{tmp_path}/unified"}
    assert freezer(str(tmp_path)) == expected.get(kind)


def test_processes_need_no_control_groups() -> None:
    assert enforce(Limits(pids=5), best_effort=False, **NOTHING) == Enforcement(nested=5)


def test_a_watched_memory_limit_ends_the_sandbox(bench: Bench) -> None:
    async def body() -> None:
        await bench.engine.helper.start()
        bench.engine.helper.limits = False
        place = await start(bench, memory=64 << 20, best_effort=True)
        assert "memory" in place.where.warnings[0]
        said = await place.sh(EAT)
        assert said.completed.limit == "memory"
        with pytest.raises(EngineError, match="more memory"):
            await place.sh("true")

    bench.trial(body)


def test_another_clients_gc_leaves_the_groups_of_a_sandbox_that_is_being_made(bench: Bench) -> None:
    need(bench, Capability.HARD_MEMORY)
    first, second = Cgroups(), Cgroups()
    name = f"s-test-{os.getpid()}"
    first.make(name, 64 << 20, None, 10)
    top = Path(next(iter(hierarchies().values()))) / "sandboxfile" / name
    try:
        second.remove_empty()
        assert top.is_dir()
    finally:
        first.remove(name)
    assert not top.exists()


def test_without_a_systemd_of_the_users_no_scope_is_asked_for(tmp_path: Path) -> None:
    assert not is_offered(str(tmp_path), str(tmp_path))


@pytest.mark.skipif(os.path.exists(f"/run/user/{os.geteuid()}/bus"), reason="this user has a systemd")
def test_a_scope_that_nobody_gives_is_not_waited_for() -> None:
    assert not enter(os.getpid())


def test_groups_that_appear_are_found_when_somebody_looks_again(tmp_path: Path) -> None:
    cgroups = Cgroups(str(tmp_path))
    assert (cgroups.usable, cgroups.can_freeze) == (False, False)
    for name in ("memory", "cpu", "pids", "unified"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    cgroups.look()
    assert (cgroups.usable, cgroups.can_freeze) == (True, True)
