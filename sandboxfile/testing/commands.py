"""Promises on commands, in a workspace or a sandbox."""

from __future__ import annotations

import asyncio
import json

from sandboxfile.engine.base import Capability, Mount
from sandboxfile.testing.promise import ENVIRONMENT, Lab, expect, holds, promise, until


@promise()
async def exit_codes_are_passed_on(lab: Lab) -> None:
    """A command's exit code arrives unchanged, from workspaces and sandboxes."""
    for where in (await lab.prepare(), await lab.sandbox()):
        for code in (0, 1, 3, 255):
            expect((await lab.run(where, f"exit {code}")).exit_code, code)


@promise()
async def a_signal_is_128_and_its_number(lab: Lab) -> None:
    """A command that a signal ended has the exit code 128 + signal."""
    sandbox = await lab.sandbox()
    expect((await lab.run(sandbox, "kill -KILL $$")).exit_code, 137)
    expect((await lab.run(sandbox, "kill -TERM $$")).exit_code, 143)


@promise()
async def a_missing_program_is_127(lab: Lab) -> None:
    """A program that is nowhere in PATH exits with 127, and is no error of the engine."""
    for where in (await lab.prepare(), await lab.sandbox()):
        expect((await lab.run(where, ["no-such-program-anywhere"])).exit_code, 127)


@promise()
async def a_file_that_is_no_program_is_126(lab: Lab) -> None:
    """A file without the executable bit exits with 126."""
    sandbox = await lab.sandbox()
    expect((await lab.run(sandbox, ["/etc/passwd"])).exit_code, 126)


@promise()
async def streams_stay_apart(lab: Lab) -> None:
    """stdout and stderr arrive apart, each whole and in order."""
    for where in (await lab.prepare(), await lab.sandbox()):
        outcome = await lab.run(where, "seq 1 5000; seq 5001 9000 >&2; echo end")
        expect(outcome.stdout, "".join(f"{i}\n" for i in range(1, 5001)).encode() + b"end\n", "stdout")
        expect(outcome.stderr, "".join(f"{i}\n" for i in range(5001, 9001)).encode(), "stderr")


@promise()
async def output_is_bytes(lab: Lab) -> None:
    """Output is passed on as bytes, whatever they are."""
    sandbox = await lab.sandbox()
    outcome = await lab.run(sandbox, r"printf '\377\376\000\001'")
    expect(outcome.stdout, b"\xff\xfe\x00\x01")


@promise()
async def much_output_on_both_streams_does_not_block(lab: Lab) -> None:
    """A megabyte on each stream at once arrives, and the command ends."""
    for where in (await lab.prepare(), await lab.sandbox()):
        script = "head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait"
        outcome = await lab.run(where, script)
        expect((outcome.exit_code, len(outcome.stdout), len(outcome.stderr)), (0, 1_000_000, 1_000_000))


@promise()
async def stdin_is_passed_and_ends(lab: Lab) -> None:
    """A command reads the bytes it is given, then the end; without any, the end at once."""
    given = bytes(range(256)) * 1000
    for where in (await lab.prepare(), await lab.sandbox()):
        expect((await lab.run(where, ["cat"], stdin=given)).stdout, given)
        expect((await lab.run(where, ["cat"])).stdout, b"")


@promise()
async def unread_stdin_does_not_block(lab: Lab) -> None:
    """A command that reads nothing of a megabyte of stdin ends all the same."""
    sandbox = await lab.sandbox()
    expect((await lab.run(sandbox, "exit 4", stdin=bytes(1_000_000))).exit_code, 4)


@promise()
async def arguments_arrive_unchanged(lab: Lab) -> None:
    """Arguments are neither split nor interpreted."""
    words = ["two  words", "", "'\"$HOME`*", "new\nline", "ünïcödé ☃", "--", "\\"]
    sandbox = await lab.sandbox()
    outcome = await lab.run(sandbox, ["printf", "<%s>", *words])
    expect(outcome.stdout.decode(), "".join(f"<{word}>" for word in words))


@promise()
async def the_environment_is_exactly_what_was_given(lab: Lab) -> None:
    """Nothing is inherited and nothing is added; values may hold anything but NUL."""
    env = {**ENVIRONMENT, "HOME": "/nowhere", "SPACED": " a b ", "SIGN": "a=b", "UNICODE": "ü☃", "EMPTY": ""}
    for where in (await lab.prepare(), await lab.sandbox()):
        outcome = await lab.run(where, ["env"], env=env)
        lines = outcome.stdout.decode().splitlines()
        expect(sorted(lines), sorted(f"{name}={value}" for name, value in env.items()))


@promise()
async def users_by_number_and_by_name(lab: Lab) -> None:
    """A command runs as the user it names, by number or by name, with that user's group."""
    for where in (await lab.prepare(), await lab.sandbox()):
        for user, ids in (
            ("root", "0 0"),
            ("nobody", "65534 65534"),
            ("1234:2345", "1234 2345"),
            ("nobody:daemon", "65534 1"),
        ):
            expect(await lab.succeed(where, "echo $(id -u) $(id -g)", user=user), ids, user)


@promise()
async def an_ordinary_user_cannot_write_what_is_roots(lab: Lab) -> None:
    """Permissions hold inside."""
    sandbox = await lab.sandbox()
    refused = await lab.run(sandbox, "echo x > /etc/conformance", user="nobody")
    holds(refused.exit_code != 0, "nobody wrote into /etc")
    await lab.succeed(sandbox, "echo x > /tmp/conformance", user="nobody")


@promise()
async def commands_start_in_their_directory(lab: Lab) -> None:
    """A command starts in the directory it names."""
    for where in (await lab.prepare(), await lab.sandbox()):
        expect(await lab.succeed(where, ["pwd"], cwd="/usr/lib"), "/usr/lib")


@promise()
async def the_umask_is_022(lab: Lab) -> None:
    """New files are 0644 and new directories 0755."""
    workspace = await lab.prepare()
    await lab.succeed(workspace, "touch /opt/f; mkdir /opt/d")
    expect(await lab.succeed(workspace, "stat -c %a /opt/f /opt/d"), "644\n755")


@promise()
async def the_usual_devices_are_there(lab: Lab) -> None:
    """/dev/null takes everything and /dev/zero gives zeros, for every user."""
    for where in (await lab.prepare(), await lab.sandbox()):
        script = "echo x > /dev/null; cat /dev/null; head -c 5 /dev/zero | wc -c"
        expect(await lab.succeed(where, script, user="nobody"), "5")


@promise()
async def a_timeout_ends_the_whole_tree(lab: Lab) -> None:
    """A command that runs out of time is killed with everything it started."""
    sandbox = await lab.sandbox()
    script = "sleep 1000 & echo $! > /tmp/child; echo started; wait"
    outcome = await lab.run(sandbox, script, timeout=1.0)
    holds(outcome.completed.timed_out, "it was not said to have timed out")
    holds(outcome.exit_code != 0, "it was said to have succeeded")
    expect(outcome.text, "started", "what it wrote before")
    child = await lab.succeed(sandbox, "cat /tmp/child")

    async def gone() -> bool:
        # A process that is dead but not yet waited for has no command line.
        return (await lab.run(sandbox, f"cat /proc/{child}/cmdline")).stdout == b""

    await until(gone)


@promise()
async def a_timeout_in_a_workspace_leaves_it_usable(lab: Lab) -> None:
    """After a timeout a workspace can be looked at, and aborted."""
    workspace = await lab.prepare()
    outcome = await lab.run(workspace, "echo kept > /opt/state; sleep 1000", timeout=1.0)
    holds(outcome.completed.timed_out, "it was not said to have timed out")
    expect(await workspace.read("/opt/state"), b"kept\n")
    await workspace.abort()


@promise()
async def a_cancelled_command_is_ended(lab: Lab) -> None:
    """Cancelling the caller ends the command; the sandbox can still be used."""
    sandbox = await lab.sandbox()
    script = "echo $$ > /tmp/pid; sleep 1000; echo over"
    task = asyncio.create_task(lab.run(sandbox, script))

    async def started() -> bool:
        return (await lab.run(sandbox, "cat /tmp/pid")).stdout != b""

    await until(started)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    holds(task.cancelled(), "the cancellation was swallowed")
    pid = await lab.succeed(sandbox, "cat /tmp/pid")

    async def gone() -> bool:
        return (await lab.run(sandbox, f"cat /proc/{pid}/cmdline")).stdout == b""

    await until(gone)


@promise()
async def no_network_unless_asked(lab: Lab) -> None:
    """Without network there is the loopback interface and no other."""
    for where in (await lab.prepare(), await lab.sandbox()):
        lines = (await lab.succeed(where, ["cat", "/proc/net/dev"])).splitlines()
        names = [line.partition(":")[0].strip() for line in lines if ":" in line]
        expect(names, ["lo"])


@promise()
async def secrets_are_readable_and_leave_no_trace(lab: Lab) -> None:
    """A command reads a secret at /run/secrets/NAME, as any user; the layer does not hold it."""
    secret = f"secret-{lab.token}\n".encode()
    workspace = await lab.prepare()
    for user in ("root", "nobody"):
        outcome = await lab.run(
            workspace, ["cat", "/run/secrets/token"], secrets={"token": secret}, user=user
        )
        expect(outcome.stdout, secret, user)
    holds((await lab.run(workspace, ["cat", "/run/secrets/token"])).exit_code != 0, "the secret stayed")
    stack = await lab.commit(workspace)
    sandbox = await lab.sandbox(stack)
    holds((await lab.run(sandbox, "ls -d /run/secrets/token")).exit_code != 0, "the layer holds it")


@promise(Capability.MOUNTS)
async def mounts_are_read_only_and_leave_no_trace(lab: Lab) -> None:
    """A mount is seen read-only while a command runs; its mount point does not stay."""
    directory = lab.directory() / "mounted"
    directory.mkdir()
    (directory / "file").write_bytes(b"from outside")
    file = lab.directory() / "single"
    file.write_bytes(b"one file")
    for path, mode in ((directory, 0o755), (directory / "file", 0o644), (file, 0o644)):
        path.chmod(mode)
    mounts = (Mount(directory, "/opt/mounted"), Mount(file, "/opt/single"))
    workspace = await lab.prepare()
    script = "cat /opt/mounted/file /opt/single"
    expect(await lab.succeed(workspace, script, mounts=mounts), "from outsideone file")
    refused = await lab.run(workspace, "echo x > /opt/mounted/new", mounts=mounts)
    holds(refused.exit_code != 0, "the mount could be written")
    refused = await lab.run(workspace, "echo x > /opt/single", mounts=mounts)
    holds(refused.exit_code != 0, "the mounted file could be written")
    stack = await lab.commit(workspace)
    expect(await lab.seen(stack, "ls -A /opt"), "", "what stayed")
    expect((directory / "file").read_bytes(), b"from outside")


@promise()
async def commands_do_not_see_this_machine(lab: Lab) -> None:
    """Files of the caller are not there."""
    witness = lab.directory() / "witness"
    witness.write_text(json.dumps(lab.token))
    sandbox = await lab.sandbox()
    holds((await lab.run(sandbox, ["cat", str(witness)])).exit_code != 0, "a file of the host is seen")


PROMISES = (
    exit_codes_are_passed_on,
    a_signal_is_128_and_its_number,
    a_missing_program_is_127,
    a_file_that_is_no_program_is_126,
    streams_stay_apart,
    output_is_bytes,
    much_output_on_both_streams_does_not_block,
    stdin_is_passed_and_ends,
    unread_stdin_does_not_block,
    arguments_arrive_unchanged,
    the_environment_is_exactly_what_was_given,
    users_by_number_and_by_name,
    an_ordinary_user_cannot_write_what_is_roots,
    commands_start_in_their_directory,
    the_umask_is_022,
    the_usual_devices_are_there,
    a_timeout_ends_the_whole_tree,
    a_timeout_in_a_workspace_leaves_it_usable,
    a_cancelled_command_is_ended,
    no_network_unless_asked,
    secrets_are_readable_and_leave_no_trace,
    mounts_are_read_only_and_leave_no_trace,
    commands_do_not_see_this_machine,
)
