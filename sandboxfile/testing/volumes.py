"""Promises on what stays: volumes, and snapshots of what runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sandboxfile.engine.base import Capability, Command, SandboxOptions, Stdio
from sandboxfile.errors import EngineError, NoSuchVolume, SandboxfileError, VolumeInUse
from sandboxfile.testing.promise import ENVIRONMENT, Lab, expect, holds, promise, until

CAPACITY = 16 << 20


async def refused(kind: type[SandboxfileError], attempt: Callable[[], Awaitable[object]]) -> None:
    """AssertionError unless something is refused with an error of that kind."""
    try:
        await attempt()
    except kind:
        return
    raise AssertionError(f"it was not refused with {kind.__name__}")


@promise()
async def what_is_written_to_a_volume_stays(lab: Lab) -> None:
    """What a sandbox on a volume writes and deletes is found by the next one on it, and by nobody else."""
    options = SandboxOptions(volume=await lab.volume())
    first = await lab.start(options)
    await lab.succeed(first, "echo kept > /opt/file; rm /etc/hostname; chmod 700 /opt")
    await first.close()
    second = await lab.start(options)
    script = "cat /opt/file; stat -c %a /opt; if [ -e /etc/hostname ]; then echo there; else echo gone; fi"
    expect(await lab.succeed(second, script), "kept\n700\ngone")
    expect(await lab.seen(lab.base, "ls -A /opt; cat /etc/hostname >/dev/null"), "")


@promise()
async def a_volume_is_used_by_one_sandbox_at_a_time(lab: Lab) -> None:
    """While a sandbox uses a volume, another that wants it, its removal and its freezing are refused with
    VolumeInUse; afterwards it is free."""
    name = await lab.volume()
    sandbox = await lab.start(SandboxOptions(volume=name))
    definition = lab.frozen(lab.base)
    await refused(VolumeInUse, lambda: lab.start(SandboxOptions(volume=name)))
    await refused(VolumeInUse, lambda: lab.start(SandboxOptions(mounts={"/mnt": name})))
    await refused(VolumeInUse, lambda: lab.engine.remove_volume(name))
    await refused(VolumeInUse, lambda: lab.engine.freeze_volume(name, definition, lab.key(definition)))
    await sandbox.close()
    again = await lab.start(SandboxOptions(volume=name))
    await lab.succeed(again, "true")


@promise()
async def an_unknown_volume_is_refused(lab: Lab) -> None:
    """A volume that does not exist is NoSuchVolume, for its sandbox as for its freezing; removing it does
    nothing."""
    name = f"none-{lab.token[:12]}"
    definition = lab.frozen(lab.base)
    await refused(NoSuchVolume, lambda: lab.start(SandboxOptions(volume=name)))
    await refused(NoSuchVolume, lambda: lab.start(SandboxOptions(mounts={"/mnt": name})))
    await refused(NoSuchVolume, lambda: lab.engine.freeze_volume(name, definition, lab.key(definition)))
    await lab.engine.remove_volume(name)


@promise()
async def a_removed_volume_is_gone(lab: Lab) -> None:
    """A removed volume is unknown."""
    name = await lab.volume()
    await lab.engine.remove_volume(name)
    await refused(NoSuchVolume, lambda: lab.start(SandboxOptions(volume=name)))


@promise()
async def a_frozen_volume_is_a_layer(lab: Lab) -> None:
    """Freezing makes a layer of all that a volume holds, and the volume is empty on top of it: what is
    written to it afterwards is not in the layer."""
    name = await lab.volume()
    first = await lab.start(SandboxOptions(volume=name))
    await lab.succeed(first, "echo one > /opt/file; rm /etc/hostname; mkdir -p /opt/a/b")
    await first.close()
    stack = await lab.freeze(name, lab.base)
    look = "cat /opt/file; ls /opt/a; if [ -e /etc/hostname ]; then echo there; else echo gone; fi"
    expect(await lab.seen(stack, look), "one\nb\ngone")
    second = await lab.start(SandboxOptions(volume=name), stack)
    expect(await lab.succeed(second, look), "one\nb\ngone", "on the volume")
    await lab.succeed(second, "echo two > /opt/file")
    await second.close()
    expect(await lab.seen(stack, "cat /opt/file"), "one")
    third = await lab.start(SandboxOptions(volume=name), stack)
    expect(await lab.succeed(third, "cat /opt/file"), "two")


@promise()
async def volumes_are_mounted_at_paths(lab: Lab) -> None:
    """A sandbox sees volumes at the paths it names, and what it writes there stays in them; the rest of what
    it writes does not."""
    first, second = await lab.volume(stack=()), await lab.volume(stack=())
    sandbox = await lab.start(SandboxOptions(mounts={"/data/one": first, "/srv/two": second}))
    await lab.succeed(sandbox, "echo 1 > /data/one/file; echo 2 > /srv/two/file; echo 3 > /opt/file")
    await sandbox.close()
    again = await lab.start(SandboxOptions(mounts={"/swapped": second}))
    expect(await lab.succeed(again, "cat /swapped/file; ls -A /opt"), "2")
    other = await lab.start(SandboxOptions(mounts={"/data": first}))
    expect(await lab.succeed(other, "cat /data/file"), "1")


@promise()
async def a_volume_outlives_a_sandbox_that_ends_by_itself(lab: Lab) -> None:
    """A sandbox whose time is over gives its volume back, with what was written."""
    options = SandboxOptions(volume=await lab.volume(), timeout=0.5)
    sandbox = await lab.start(options)
    await lab.run(sandbox, "echo kept > /opt/file; sleep 1000")
    await sandbox.close()
    again = await lab.start(SandboxOptions(volume=options.volume))
    expect(await lab.succeed(again, "cat /opt/file"), "kept")


@promise(Capability.VOLUME_CAPACITY)
async def a_volume_keeps_to_its_capacity(lab: Lab) -> None:
    """Writing more than its capacity to a volume fails for want of space, and what was there stays."""
    sandbox = await lab.start(SandboxOptions(volume=await lab.volume(CAPACITY)))
    await lab.succeed(sandbox, "echo kept > /opt/small")
    outcome = await lab.run(sandbox, f"head -c {2 * CAPACITY} /dev/zero > /opt/big")
    holds(outcome.exit_code != 0, "more than the capacity was written")
    holds(b"No space left" in outcome.stderr, f"it said {outcome.stderr!r}")
    script = "rm -f /opt/big; echo more >> /opt/small; cat /opt/small"
    expect(await lab.succeed(sandbox, script), "kept\nmore")


@promise()
async def a_running_sandbox_can_be_made_a_snapshot(lab: Lab) -> None:
    """A snapshot of a running sandbox is a layer of what it has written and deleted since its start; it says
    how long the sandbox stood still."""
    sandbox = await lab.sandbox()
    await lab.succeed(sandbox, "echo one > /opt/file; ln -s file /opt/link; rm /etc/hostname; mkdir /opt/d")
    stack, pause = await lab.snapshot(sandbox)
    holds(0 <= pause < 60, f"it stood still for {pause} seconds")
    script = "cat /opt/link; ls -d /opt/d; if [ -e /etc/hostname ]; then echo there; else echo gone; fi"
    expect(await lab.seen(stack, script), "one\n/opt/d\ngone")


@promise()
async def a_sandbox_goes_on_after_its_snapshot(lab: Lab) -> None:
    """After a snapshot, a sandbox and its processes go on, and what they write is not in the snapshot."""
    sandbox = await lab.sandbox()
    waiting = "until [ -e /tmp/go ]; do sleep 0.02; done; echo later > /tmp/said; mv /tmp/said /opt/file"
    await lab.succeed(sandbox, "echo one > /opt/file")
    process = await sandbox.spawn(Command(("/bin/sh", "-c", waiting), env=ENVIRONMENT), Stdio())
    stack, _ = await lab.snapshot(sandbox)
    await lab.succeed(sandbox, "touch /tmp/go")
    expect((await process.wait()).exit_code, 0)
    expect(await lab.succeed(sandbox, "cat /opt/file"), "later")
    expect(await lab.seen(stack, "cat /opt/file"), "one")


@promise()
async def a_snapshot_of_an_attached_volume_leaves_it_as_it_is(lab: Lab) -> None:
    """A snapshot of a sandbox on a volume holds what the volume holds, and the volume keeps all of it."""
    name = await lab.volume()
    sandbox = await lab.start(SandboxOptions(volume=name))
    await lab.succeed(sandbox, "echo one > /opt/file")
    stack, _ = await lab.snapshot(sandbox)
    await lab.succeed(sandbox, "echo two > /opt/file")
    expect(await lab.seen(stack, "cat /opt/file"), "one")
    await sandbox.close()
    again = await lab.start(SandboxOptions(volume=name))
    expect(await lab.succeed(again, "cat /opt/file"), "two")


@promise()
async def snapshots_stand_on_snapshots(lab: Lab) -> None:
    """A sandbox on a snapshot of a sandbox can be made a snapshot in its turn."""
    first = await lab.sandbox()
    await lab.succeed(first, "echo 1 > /opt/one")
    stack, _ = await lab.snapshot(first)
    second = await lab.sandbox(stack)
    expect(second.stack, stack, "the stack of the sandbox")
    await lab.succeed(second, "echo 2 > /opt/two; rm /opt/one")
    higher, _ = await lab.snapshot(second)
    expect(await lab.seen(higher, "ls /opt"), "two")
    expect(await lab.seen(stack, "ls /opt"), "one")


@promise()
async def an_ended_sandbox_cannot_be_made_a_snapshot(lab: Lab) -> None:
    """A snapshot of a sandbox that was closed is refused with an EngineError."""
    sandbox = await lab.sandbox()
    await sandbox.close()
    definition = lab.frozen(lab.base)
    await refused(EngineError, lambda: sandbox.snapshot(definition, lab.key(definition)))


@promise()
async def a_sandbox_knows_whether_it_lives(lab: Lab) -> None:
    """`alive` is true until a sandbox is closed, or has ended by itself."""
    sandbox, brief = await lab.sandbox(), await lab.start(SandboxOptions(timeout=0.2))
    holds(sandbox.alive, "it was said to have ended")

    async def ended() -> bool:
        return not brief.alive

    await until(ended)
    await sandbox.close()
    holds(not sandbox.alive, "it was said to live")


PROMISES = (
    what_is_written_to_a_volume_stays,
    a_volume_is_used_by_one_sandbox_at_a_time,
    an_unknown_volume_is_refused,
    a_removed_volume_is_gone,
    a_frozen_volume_is_a_layer,
    volumes_are_mounted_at_paths,
    a_volume_outlives_a_sandbox_that_ends_by_itself,
    a_volume_keeps_to_its_capacity,
    a_running_sandbox_can_be_made_a_snapshot,
    a_sandbox_goes_on_after_its_snapshot,
    a_snapshot_of_an_attached_volume_leaves_it_as_it_is,
    snapshots_stand_on_snapshots,
    an_ended_sandbox_cannot_be_made_a_snapshot,
    a_sandbox_knows_whether_it_lives,
)
