"""Promises on limits: kept, and named when they end something."""

from __future__ import annotations

from sandboxfile.engine.base import Capability, Command, Limits, SandboxOptions, Stdio
from sandboxfile.errors import EngineError
from sandboxfile.testing.promise import ENVIRONMENT, Lab, expect, holds, promise

_PROCESSES = 40
_DISK = 8 << 20


def limited(**limits: float) -> SandboxOptions:
    """Options with nothing but limits."""
    return SandboxOptions(limits=Limits(**limits))  # type: ignore[arg-type]


@promise(Capability.HARD_MEMORY)
async def memory_is_limited(lab: Lab) -> None:
    """A command that takes more memory than its sandbox may is ended, and the limit is named `memory`; the
    sandbox goes on."""
    sandbox = await lab.start(limited(memory=64 << 20))
    outcome = await lab.run(sandbox, ["perl", "-e", '$x = "a" x 200_000_000; sleep 1000'])
    holds(outcome.exit_code != 0, "it was said to have succeeded")
    expect((outcome.completed.limit, outcome.completed.out_of_memory), ("memory", True))
    expect(await lab.succeed(sandbox, "echo on"), "on")


@promise(Capability.HARD_CPU)
async def processors_are_limited(lab: Lab) -> None:
    """A sandbox with a fifth of a processor takes at least twice as long as its processor time."""
    sandbox = await lab.start(limited(cpus=0.2))
    outcome = await lab.run(sandbox, ["perl", "-e", "$t = (times)[0] + 0.3; 1 while (times)[0] < $t"])
    expect(outcome.exit_code, 0)
    holds(outcome.completed.seconds > 0.6, f"it took {outcome.completed.seconds} seconds")


@promise(Capability.HARD_PIDS)
async def processes_are_limited(lab: Lab) -> None:
    """A sandbox has no more processes than it may, whatever users they belong to, and another one has as many
    of its own."""
    count = "for (1..200) { $p = fork; last unless defined $p; if (!$p) { sleep 1000 } $n++ } print $n + 0"
    for _ in range(2):
        sandbox = await lab.start(limited(pids=_PROCESSES))
        made = 0
        for user in ("root", "nobody"):
            outcome = await lab.run(sandbox, ["perl", "-e", count], user=user)
            made += int(outcome.stdout or b"0")
        holds(_PROCESSES // 2 < made <= _PROCESSES, f"{made} processes were made")


@promise(Capability.HARD_DISK)
async def what_is_written_is_limited(lab: Lab) -> None:
    """Writing more than a sandbox may fails for want of space; it goes on, and another one has as much of its
    own."""
    for _ in range(2):
        sandbox = await lab.start(limited(disk=_DISK))
        await lab.succeed(sandbox, "echo kept > /opt/small")
        outcome = await lab.run(sandbox, f"head -c {2 * _DISK} /dev/zero > /opt/big")
        holds(outcome.exit_code != 0, "more than the limit was written")
        holds(b"No space left" in outcome.stderr, f"it said {outcome.stderr!r}")
        expect(await lab.succeed(sandbox, "rm -f /opt/big; cat /opt/small"), "kept")


@promise()
async def output_is_limited(lab: Lab) -> None:
    """A command that writes more than it may is ended, the limit is named `output`, and exactly as much as it
    may write has arrived."""
    sandbox = await lab.start(limited(output=10_000))
    outcome = await lab.run(sandbox, "while true; do echo 123456789; done")
    holds(outcome.exit_code != 0, "it was said to have succeeded")
    expect((outcome.completed.limit, len(outcome.stdout)), ("output", 10_000))
    both = await lab.run(sandbox, "head -c 6000 /dev/zero; head -c 6000 /dev/zero >&2; sleep 1000")
    expect((both.completed.limit, len(both.stdout) + len(both.stderr)), ("output", 10_000), "both streams")
    exact = await lab.run(sandbox, "head -c 10000 /dev/zero")
    expect((exact.exit_code, exact.completed.limit), (0, None), "exactly the limit")


@promise()
async def a_commands_time_is_named(lab: Lab) -> None:
    """The limit that ended a command whose own time was over is named `timeout`; the sandbox goes on."""
    sandbox = await lab.sandbox()
    outcome = await lab.run(sandbox, "sleep 1000", timeout=0.3)
    expect((outcome.completed.timed_out, outcome.completed.limit), (True, "timeout"))
    expect(await lab.succeed(sandbox, "echo on"), "on")


@promise()
async def an_ordinary_end_names_no_limit(lab: Lab) -> None:
    """A command that fails by itself was stopped by no limit."""
    sandbox = await lab.start(limited(output=10_000, timeout=1000.0))
    for script in ("exit 3", "kill -KILL $$", "exit 0"):
        expect((await lab.run(sandbox, script)).completed.limit, None, script)


@promise()
async def the_time_of_a_sandbox_ends_everything(lab: Lab) -> None:
    """When a sandbox's time is over, all its processes end, not with success, and it is closed."""
    sandbox = await lab.start(SandboxOptions(timeout=0.5))
    process = await sandbox.spawn(Command(("sleep", "1000"), env=ENVIRONMENT), Stdio())
    outcome = await lab.run(sandbox, "sleep 1000")
    holds(outcome.exit_code != 0, "the command was said to have succeeded")
    holds((await process.wait()).exit_code != 0, "the process was said to have succeeded")
    try:
        await lab.run(sandbox, "true")
    except EngineError:
        return
    raise AssertionError("a sandbox whose time was over ran a command")


@promise()
async def a_sandbox_can_be_given_more_time(lab: Lab) -> None:
    """`extend` moves the end of a sandbox, further away or closer, also when there was none."""
    sandbox = await lab.start(SandboxOptions(timeout=0.7))
    await sandbox.extend(1000)
    expect(await lab.succeed(sandbox, "sleep 1; echo on"), "on")
    await sandbox.extend(0.2)
    holds((await lab.run(sandbox, "sleep 1000")).exit_code != 0, "it went on")
    endless = await lab.sandbox()
    await endless.extend(0.2)
    holds((await lab.run(endless, "sleep 1000")).exit_code != 0, "it went on")


@promise()
async def what_is_enforced_warns_of_nothing(lab: Lab) -> None:
    """A sandbox whose limits are all enforced has no warnings."""
    expect((await lab.start(limited(timeout=1000.0, output=1000))).warnings, ())


PROMISES = (
    memory_is_limited,
    processors_are_limited,
    processes_are_limited,
    what_is_written_is_limited,
    output_is_limited,
    a_commands_time_is_named,
    an_ordinary_end_names_no_limit,
    the_time_of_a_sandbox_ends_everything,
    a_sandbox_can_be_given_more_time,
    what_is_enforced_warns_of_nothing,
)
