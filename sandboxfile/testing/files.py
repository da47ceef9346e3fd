"""Promises on placed files, and on detached layers that are put on any chain."""

from __future__ import annotations

from sandboxfile.core.layer import TreeEntry
from sandboxfile.declared import replace
from sandboxfile.errors import SandboxfileError
from sandboxfile.testing.promise import Lab, expect, holds, promise


@promise()
async def placed_entries_are_what_they_say(lab: Lab) -> None:
    """`place` writes files, directories and symlinks with their modes and owners."""
    workspace = await lab.prepare()
    await workspace.place(
        [
            TreeEntry("/opt/d", "dir", 0o2750, "12:34"),
            lab.file("/opt/d/script", b"#!/bin/sh\necho ran\n", 0o755),
            lab.file("/opt/d/private", b"", 0o600, "12:34"),
            TreeEntry("/opt/d/link", "symlink", 0, target="script"),
        ]
    )
    stack = await lab.commit(workspace)
    shown = await lab.seen(stack, "stat -c '%a %u %g' /opt/d /opt/d/script /opt/d/private")
    expect(shown, "2750 12 34\n755 0 0\n600 12 34")
    expect(await lab.seen(stack, "/opt/d/link; readlink /opt/d/link"), "ran\nscript")


@promise()
async def owners_may_have_names(lab: Lab) -> None:
    """Owner names are those of the stack's passwd and group."""
    workspace = await lab.prepare()
    await workspace.place(
        [lab.file("/opt/a", b"a", owner="nobody:daemon"), lab.file("/opt/b", b"b", owner="root:root")]
    )
    expect(await lab.succeed(workspace, "stat -c '%u %g' /opt/a /opt/b"), "65534 1\n0 0")


@promise()
async def missing_parents_are_made(lab: Lab) -> None:
    """Directories above an entry that do not exist are made, 0755 and root's; others stay as they are."""
    workspace = await lab.prepare()
    await lab.succeed(workspace, "mkdir /opt/there; chmod 700 /opt/there; chown 5:5 /opt/there")
    await workspace.place([lab.file("/opt/there/x/y/file", b"deep")])
    shown = await lab.succeed(workspace, "stat -c '%a %u' /opt/there /opt/there/x /opt/there/x/y")
    expect(shown, "700 5\n755 0\n755 0")


@promise()
async def placing_replaces(lab: Lab) -> None:
    """An entry takes the place of a file or a symlink; it does not write through the symlink."""
    workspace = await lab.prepare()
    await lab.succeed(workspace, "echo old > /opt/f; echo safe > /opt/target; ln -s target /opt/l")
    await workspace.place([lab.file("/opt/f", b"new"), lab.file("/opt/l", b"instead")])
    expect(
        await lab.succeed(workspace, "cat /opt/f; echo; cat /opt/l; echo; cat /opt/target"),
        "new\ninstead\nsafe",
    )


@promise()
async def placing_follows_directories_that_are_links(lab: Lab) -> None:
    """An entry below /bin goes where /bin leads, and /bin stays a symlink."""
    workspace = await lab.prepare()
    await workspace.place([lab.file("/bin/conformance", b"#!/bin/sh\necho here\n", 0o755)])
    expect(await lab.succeed(workspace, "/usr/bin/conformance; readlink /bin"), "here\nusr/bin")


@promise()
async def bytes_are_checked_when_they_are_placed(lab: Lab) -> None:
    """A file whose bytes do not have its digest is refused: a key must never stand for other content."""
    entry = replace(lab.file("/opt/f", b"changed meanwhile"), sha256="0" * 64)
    workspace = await lab.prepare()
    try:
        await workspace.place([entry])
    except SandboxfileError:
        return
    raise AssertionError("bytes of another digest were placed")


@promise()
async def a_detached_layer_goes_on_any_chain(lab: Lab) -> None:
    """One detached layer is seen on two chains, and by the layers above it."""
    one = await lab.layer("echo one > /opt/chain")
    two = await lab.layer("echo two > /opt/chain; rm /etc/hostname")
    files = await lab.detached([lab.file("/opt/app/main", b"app\n")])
    for chain, name in ((one, "one"), (two, "two")):
        stack = (*chain, files)
        expect(await lab.seen(stack, "cat /opt/chain /opt/app/main"), f"{name}\napp")
        above = await lab.layer("cat /opt/app/main > /opt/copy; rm /opt/app/main", stack)
        expect(await lab.seen(above, "cat /opt/copy; ls -A /opt/app"), "app")
    expect(await lab.seen((*one, files), "cat /opt/app/main"), "app")


@promise()
async def implied_directories_keep_the_attributes_of_the_chain(lab: Lab) -> None:
    """A detached file in /tmp leaves /tmp 1777; a directory of the chain keeps its owner and mode."""
    chain = await lab.layer("mkdir /opt/data; chmod 2770 /opt/data; chown 12:34 /opt/data")
    files = await lab.detached([lab.file("/tmp/f", b"t"), lab.file("/opt/data/f", b"d")])
    shown = await lab.seen((*chain, files), "stat -c '%a %u %g' /tmp /opt/data; cat /tmp/f /opt/data/f")
    expect(shown, "1777 0 0\n2770 12 34\ntd")
    shown = await lab.seen((*lab.base, files), "stat -c '%a %u %g' /tmp /opt/data")
    expect(shown, "1777 0 0\n755 0 0", "where the chain has no such directory")


@promise()
async def named_directories_have_the_attributes_they_were_given(lab: Lab) -> None:
    """A directory that a detached layer names has the attributes it names, whatever the chain says."""
    chain = await lab.layer("mkdir /opt/data; chmod 700 /opt/data")
    files = await lab.detached(
        [TreeEntry("/opt/data", "dir", 0o2755, "12:34"), lab.file("/opt/data/f", b"d")]
    )
    expect(await lab.seen((*chain, files), "stat -c '%a %u %g' /opt/data"), "2755 12 34")


@promise()
async def detached_layers_follow_the_links_of_the_chain(lab: Lab) -> None:
    """A detached file below /bin goes to /usr/bin where /bin is a link, and /bin stays one."""
    files = await lab.detached([lab.file("/bin/conformance", b"#!/bin/sh\necho found\n", 0o755)])
    shown = await lab.seen((*lab.base, files), "/usr/bin/conformance; readlink /bin; ls -d /bin/sh")
    expect(shown, "found\nusr/bin\n/bin/sh")
    chain = await lab.layer("mkdir /opt/real; echo there > /opt/real/there; ln -s real /opt/way")
    files = await lab.detached([lab.file("/opt/way/f", b"f\n")])
    shown = await lab.seen((*chain, files), "readlink /opt/way; cat /opt/real/there /opt/real/f")
    expect(shown, "real\nthere\nf")


@promise()
async def links_of_the_chain_lead_nowhere_outside(lab: Lab) -> None:
    """A detached file below a link that points far up stays inside the chain."""
    outside = lab.directory() / "outside"
    outside.mkdir()
    chain = await lab.layer(f"ln -s ../../../../../../../../..{outside} /opt/out; mkdir -p {outside}")
    files = await lab.detached([lab.file("/opt/out/escaped", b"inside\n")])
    expect(await lab.seen((*chain, files), f"cat {outside}/escaped"), "inside")
    expect(list(outside.iterdir()), [], "files on this machine")


@promise()
async def two_detached_layers_are_placed_in_order(lab: Lab) -> None:
    """Of two detached layers with the same path the upper one wins."""
    low = await lab.detached([lab.file("/opt/f", b"low\n"), lab.file("/opt/low", b"low\n")])
    high = await lab.detached([lab.file("/opt/f", b"high\n"), lab.file("/opt/high", b"high\n")])
    expect(await lab.seen((*lab.base, low, high), "cat /opt/f /opt/low /opt/high"), "high\nlow\nhigh")
    expect(await lab.seen((*lab.base, high, low), "cat /opt/f /opt/low /opt/high"), "low\nlow\nhigh")


@promise()
async def scratch_is_empty(lab: Lab) -> None:
    """A workspace on an empty stack holds what is placed there, and nothing else of anybody's."""
    workspace = await lab.prepare(())
    await workspace.place([lab.file("/only/file", b"all there is")])
    expect(await workspace.read("/only/file"), b"all there is")
    try:
        await workspace.read("/etc/passwd")
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("an empty stack has /etc/passwd")
    stack = await lab.commit(workspace, ())
    holds(stack[-1] in await lab.engine.have(stack), "it was not committed")


PROMISES = (
    placed_entries_are_what_they_say,
    owners_may_have_names,
    missing_parents_are_made,
    placing_replaces,
    placing_follows_directories_that_are_links,
    bytes_are_checked_when_they_are_placed,
    a_detached_layer_goes_on_any_chain,
    implied_directories_keep_the_attributes_of_the_chain,
    named_directories_have_the_attributes_they_were_given,
    detached_layers_follow_the_links_of_the_chain,
    links_of_the_chain_lead_nowhere_outside,
    two_detached_layers_are_placed_in_order,
    scratch_is_empty,
)
