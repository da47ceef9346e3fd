"""Promises on workspaces, and on the layers that they become."""

from __future__ import annotations

import hashlib

from sandboxfile.core.layer import RunLayer, layer_key
from sandboxfile.engine.base import Capability
from sandboxfile.errors import EngineError
from sandboxfile.testing.promise import Lab, expect, holds, promise


@promise()
async def what_was_written_survives_a_commit(lab: Lab) -> None:
    """Files, directories, modes, owners and symlinks are in the layer."""
    stack = await lab.layer(
        "mkdir -p /opt/a/b; echo text > /opt/a/b/file; chmod 640 /opt/a/b/file; chmod 2750 /opt/a"
        "; chown 12:34 /opt/a/b/file; ln -s b/file /opt/a/link; ln -s /nowhere /opt/a/dangling"
    )
    expect(await lab.seen(stack, "cat /opt/a/link"), "text")
    expect(await lab.seen(stack, "stat -c '%a %u %g' /opt/a/b/file"), "640 12 34")
    expect(await lab.seen(stack, "stat -c '%a' /opt/a"), "2750")
    expect(await lab.seen(stack, "readlink /opt/a/link; readlink /opt/a/dangling"), "b/file\n/nowhere")


@promise()
async def set_user_id_bits_survive_a_commit(lab: Lab) -> None:
    """Set-user-ID, set-group-ID and sticky bits are in the layer."""
    stack = await lab.layer(
        "touch /opt/s /opt/g; chmod 4755 /opt/s; chmod 2755 /opt/g; mkdir /opt/t; chmod 1777 /opt/t"
    )
    expect(await lab.seen(stack, "stat -c %a /opt/s /opt/g /opt/t"), "4755\n2755\n1777")


@promise()
async def deletions_survive_a_commit(lab: Lab) -> None:
    """What a layer deletes is gone in every layer above, and stays in the one below."""
    below = await lab.layer("mkdir -p /opt/tree/sub; echo 1 > /opt/tree/sub/file; echo 2 > /opt/single")
    above = await lab.layer("rm -r /opt/tree; rm /opt/single; echo new > /opt/new", below)
    expect(await lab.seen(above, "ls -A /opt"), "new")
    expect(await lab.seen(below, "ls -A /opt"), "single\ntree")
    top = await lab.layer("true", above)
    expect(await lab.seen(top, "ls -A /opt"), "new")


@promise()
async def a_replaced_directory_is_empty(lab: Lab) -> None:
    """A directory that was deleted and made again shows nothing of the old one."""
    below = await lab.layer("mkdir /opt/dir; echo old > /opt/dir/old")
    above = await lab.layer("rm -r /opt/dir; mkdir /opt/dir; echo new > /opt/dir/new", below)
    expect(await lab.seen(above, "ls -A /opt/dir"), "new")
    higher = await lab.layer("echo newer > /opt/dir/newer", above)
    expect(await lab.seen(higher, "ls -A /opt/dir"), "new\nnewer")


@promise()
async def kinds_may_change(lab: Lab) -> None:
    """A file may become a directory, a directory a file, a file a symlink."""
    below = await lab.layer("echo f > /opt/f; mkdir /opt/d; echo x > /opt/d/x; echo l > /opt/l")
    above = await lab.layer(
        "rm /opt/f; mkdir /opt/f; echo y > /opt/f/y; rm -r /opt/d; echo d > /opt/d"
        "; rm /opt/l; ln -s d /opt/l",
        below,
    )
    expect(await lab.seen(above, "cat /opt/f/y /opt/d /opt/l"), "y\nd\nd")


@promise()
async def changes_of_attributes_survive_a_commit(lab: Lab) -> None:
    """A changed mode of a file and of a directory below is in the layer, and the content stays."""
    below = await lab.layer("mkdir /opt/d; echo kept > /opt/d/f")
    above = await lab.layer("chmod 700 /opt/d; chmod 600 /opt/d/f", below)
    expect(await lab.seen(above, "stat -c %a /opt/d /opt/d/f; cat /opt/d/f"), "700\n600\nkept")
    expect(await lab.seen(below, "stat -c %a /opt/d /opt/d/f"), "755\n644")


@promise()
async def any_name_is_a_name(lab: Lab) -> None:
    """Names with spaces, newlines, quotes and characters beyond ASCII survive a commit."""
    names = ["new\nline", "ünïcödé ☃", " spaces ", "-dash", "quo'te\"", "back\\slash", ".wh.file", "*"]
    paths = [f"/opt/{name}" for name in names]
    workspace = await lab.prepare()
    await lab.succeed(workspace, ["touch", *paths])
    stack = await lab.commit(workspace)
    sandbox = await lab.sandbox(stack)
    shown = await lab.succeed(sandbox, ["stat", "-c", "%F", *paths])
    expect(shown.splitlines(), ["regular empty file"] * len(names))


@promise()
async def long_names_and_deep_trees(lab: Lab) -> None:
    """A name of 255 bytes and a path of forty directories survive a commit."""
    deep = "/opt" + "/d" * 40
    stack = await lab.layer(f"touch /opt/{'n' * 255}; mkdir -p {deep}; echo deep > {deep}/file")
    expect(await lab.seen(stack, f"cat {deep}/file; ls -d /opt/{'n' * 255}"), f"deep\n/opt/{'n' * 255}")


@promise()
async def siblings_do_not_see_each_other(lab: Lab) -> None:
    """Two workspaces on one stack, and the layers they become, are strangers."""
    first, second = await lab.prepare(), await lab.prepare()
    await lab.succeed(first, "echo 1 > /opt/first")
    await lab.succeed(second, "echo 2 > /opt/second")
    expect(await lab.succeed(second, "ls -A /opt"), "second")
    one, two = await lab.commit(first), await lab.commit(second)
    expect(await lab.seen(one, "ls -A /opt"), "first")
    expect(await lab.seen(two, "ls -A /opt"), "second")
    expect(await lab.seen(lab.base, "ls -A /opt"), "")


@promise()
async def layers_stack_in_order(lab: Lab) -> None:
    """The upper of two layers wins; with five layers each is seen."""
    stack = lab.base
    for number in range(5):
        stack = await lab.layer(f"echo {number} > /opt/last; echo {number} > /opt/{number}", stack)
    expect(await lab.seen(stack, "cat /opt/last /opt/0 /opt/1 /opt/2 /opt/3 /opt/4"), "4\n0\n1\n2\n3\n4")


@promise()
async def an_empty_layer_can_be_committed(lab: Lab) -> None:
    """A workspace in which nothing was done becomes a layer that changes nothing."""
    workspace = await lab.prepare()
    definition = lab.definition(lab.base)
    committed = await workspace.commit(definition, lab.key(definition))
    expect(committed.size, 0, "size")
    expect(await lab.seen((*lab.base, committed.key), "ls -A /opt"), "")


@promise()
async def a_second_commit_of_a_key_changes_nothing(lab: Lab) -> None:
    """The layer that was committed first under a key stays; its facts are what both commits return."""
    definition = lab.definition(lab.base)
    key = lab.key(definition)
    first, second = await lab.prepare(), await lab.prepare()
    await lab.succeed(first, "echo first > /opt/who")
    await lab.succeed(second, "echo second > /opt/who; echo more > /opt/more")
    one = await first.commit(definition, key)
    two = await second.commit(definition, key)
    expect((two.key, two.diff_id, two.size), (one.key, one.diff_id, one.size))
    expect(await lab.seen((*lab.base, key), "cat /opt/who; ls /opt"), "first\nwho")


@promise()
async def commands_in_one_workspace_share_it(lab: Lab) -> None:
    """What one command writes the next one sees; nothing that runs goes on after its command."""
    workspace = await lab.prepare()
    await lab.succeed(workspace, "echo one > /opt/one; sleep 1000 >/dev/null 2>&1 &")
    expect(await lab.succeed(workspace, "cat /opt/one"), "one")
    await lab.commit(workspace)


@promise()
async def only_what_is_committed_is_there(lab: Lab) -> None:
    """`have` names the keys that are committed, before and after a commit and a removal."""
    definition = lab.definition(lab.base)
    key = lab.key(definition)
    expect(await lab.engine.have([*lab.base, key]), frozenset(lab.base))
    workspace = await lab.prepare()
    expect(await lab.engine.have([key]), frozenset())
    await workspace.commit(definition, key)
    expect(await lab.engine.have([*lab.base, key]), frozenset((*lab.base, key)))
    await lab.engine.remove([key])
    expect(await lab.engine.have([key]), frozenset())


@promise()
async def an_aborted_workspace_leaves_nothing(lab: Lab) -> None:
    """After an abort nothing was committed, and nothing of it can be opened."""
    workspace = await lab.prepare()
    await lab.succeed(workspace, "echo x > /opt/x")
    await workspace.abort()
    try:
        await lab.engine.reopen(workspace.id)
    except EngineError:
        pass
    else:
        raise AssertionError("an aborted workspace could be opened")
    expect(await lab.seen(lab.base, "ls -A /opt"), "")


@promise()
async def a_stack_must_be_there(lab: Lab) -> None:
    """A workspace or a sandbox on a layer that is not there is refused with an EngineError."""
    missing = layer_key(lab.definition(lab.base))
    for verb in (lab.engine.prepare, lab.engine.start):
        try:
            await verb((*lab.base, missing))
        except EngineError:
            continue
        raise AssertionError(f"{verb.__name__} took a stack with a missing layer")


@promise(Capability.KEEP_WORKSPACE)
async def a_kept_workspace_can_be_opened_again(lab: Lab) -> None:
    """After `abort(keep=True)` the workspace can be opened and committed in the same state."""
    workspace = await lab.prepare()
    await lab.succeed(workspace, "echo kept > /opt/state; rm /etc/hostname")
    await workspace.abort(keep=True)
    again = await lab.engine.reopen(workspace.id)
    expect(await again.read("/opt/state"), b"kept\n")
    await lab.succeed(again, "echo more > /opt/more")
    stack = await lab.commit(again)
    expect(await lab.seen(stack, "ls -A /opt"), "more\nstate")


@promise(Capability.KEEP_WORKSPACE)
async def a_sandbox_on_a_kept_workspace_shows_it_and_leaves_it(lab: Lab) -> None:
    """A sandbox sees a kept workspace; what it writes stays out of it."""
    workspace = await lab.prepare()
    await lab.succeed(workspace, "echo failed > /opt/state")
    await workspace.abort(keep=True)
    for _ in range(2):
        sandbox = await lab.sandbox(workspace=workspace.id)
        expect(await lab.succeed(sandbox, "cat /opt/state; ls -A /opt"), "failed\nstate")
        await lab.succeed(sandbox, "echo x > /opt/scratch; rm /opt/state")
        await sandbox.close()
    await (await lab.engine.reopen(workspace.id)).abort()


@promise(Capability.DIFF_ID)
async def equal_content_has_an_equal_diff_id(lab: Lab) -> None:
    """Layers of different keys with the same content have one diff_id; other content, mode or name, not."""
    scripts = {
        "same": "mkdir -p /opt/d; echo text > /opt/d/f; ln -s f /opt/d/l",
        "again": "mkdir /opt/d; ln -s f /opt/d/l; printf 'text\\n' > /opt/d/f",
        "content": "mkdir -p /opt/d; echo other > /opt/d/f; ln -s f /opt/d/l",
        "mode": "mkdir -p /opt/d; echo text > /opt/d/f; ln -s f /opt/d/l; chmod 600 /opt/d/f",
        "owner": "mkdir -p /opt/d; echo text > /opt/d/f; ln -s f /opt/d/l; chown 1:1 /opt/d/f",
        "name": "mkdir -p /opt/d; echo text > /opt/d/g; ln -s f /opt/d/l",
        "target": "mkdir -p /opt/d; echo text > /opt/d/f; ln -s g /opt/d/l",
    }
    found = {}
    for name, script in scripts.items():
        workspace = await lab.prepare()
        await lab.succeed(workspace, script)
        definition: RunLayer = lab.definition(lab.base, name)
        found[name] = (await workspace.commit(definition, lab.key(definition))).diff_id
    expect(found["again"], found["same"], "the same content made in another order")
    different = {name: diff_id for name, diff_id in found.items() if name != "again"}
    expect(len(set(different.values())), len(different), "different contents")


@promise(Capability.DIFF_ID)
async def a_layer_measured_again_has_its_diff_id(lab: Lab) -> None:
    """The digest of a layer's content, taken anew, is the one it was committed with, before and after it was
    used; a layer that is not there cannot be measured."""
    workspace = await lab.prepare()
    await lab.succeed(
        workspace, "mkdir -p /opt/d; echo text > /opt/d/f; cp /opt/d/f /opt/d/g; rm -f /etc/hosts"
    )
    definition = lab.definition(lab.base)
    committed = await workspace.commit(definition, lab.key(definition))
    expect(await lab.engine.measure(committed.key), committed.diff_id)
    expect(await lab.seen((*lab.base, committed.key), "cat /opt/d/g"), "text")
    expect(await lab.engine.measure(committed.key), committed.diff_id)
    try:
        await lab.engine.measure(lab.key(lab.definition(lab.base)))
    except EngineError:
        return
    raise AssertionError("a layer that is not there was measured")


@promise()
async def workspaces_read_and_remove(lab: Lab) -> None:
    """`read` follows symlinks inside the workspace and never out of it; `remove` takes whole trees."""
    workspace = await lab.prepare()
    await lab.succeed(
        workspace,
        f"mkdir -p /opt/d/e; echo {lab.token} > /opt/d/e/f; ln -s /opt/d/e/f /opt/absolute"
        "; ln -s ../../../../../../../opt/d/e/f /opt/d/upwards; ln -s /opt/d /opt/way",
    )
    for path in ("/opt/d/e/f", "/opt/absolute", "/opt/d/upwards", "/opt/way/e/f"):
        expect(await workspace.read(path), f"{lab.token}\n".encode(), path)
    await workspace.remove("/opt/d")
    await workspace.remove("/opt/never-there")
    for path in ("/opt/d/e/f", "/opt/absolute"):
        try:
            await workspace.read(path)
        except FileNotFoundError:
            continue
        raise AssertionError(f"{path} is still there")
    holds((await lab.run(workspace, "ls -d /opt/d")).exit_code != 0, "the directory is still there")


@promise()
async def read_stays_inside(lab: Lab) -> None:
    """A symlink to a file of this machine leads nowhere."""
    witness = lab.directory() / "witness"
    witness.write_bytes(b"outside")
    witness.chmod(0o644)
    workspace = await lab.prepare()
    await lab.succeed(workspace, ["ln", "-s", str(witness), "/opt/link"])
    try:
        content = await workspace.read("/opt/link")
    except FileNotFoundError:
        return
    raise AssertionError(f"a file of the host was read: {content!r}")


@promise(Capability.DIFF_ID)
async def a_manifest_says_what_a_layer_holds(lab: Lab) -> None:
    """The manifest of a layer has its files with mode, owner and digest, its links, and its deletions."""
    below = await lab.layer("mkdir -p /opt/d; echo old > /opt/d/gone; echo kept > /opt/kept")
    above = await lab.layer(
        "rm /opt/d/gone; printf new > /opt/new; chmod 640 /opt/new; chown 12:34 /opt/new"
        "; ln -s new /opt/link",
        below,
    )
    (manifest,) = await lab.engine.manifests(above, start=len(below))
    found = {entry.path: entry for entry in manifest if entry.kind != "dir"}
    expect(sorted(found), ["opt/d/gone", "opt/link", "opt/new"])
    new = found["opt/new"]
    expect((new.kind, new.mode, new.uid, new.gid, new.size), ("file", 0o640, 12, 34, 3))
    expect(new.sha256, hashlib.sha256(b"new").hexdigest())
    expect((found["opt/link"].kind, found["opt/link"].target), ("symlink", "new"))
    expect(found["opt/d/gone"].kind, "whiteout")
    manifests = await lab.engine.manifests(above)
    expect(len(manifests), len(above))
    expect(manifests[-1], manifest)


PROMISES = (
    what_was_written_survives_a_commit,
    set_user_id_bits_survive_a_commit,
    deletions_survive_a_commit,
    a_replaced_directory_is_empty,
    kinds_may_change,
    changes_of_attributes_survive_a_commit,
    any_name_is_a_name,
    long_names_and_deep_trees,
    siblings_do_not_see_each_other,
    layers_stack_in_order,
    an_empty_layer_can_be_committed,
    a_second_commit_of_a_key_changes_nothing,
    commands_in_one_workspace_share_it,
    only_what_is_committed_is_there,
    an_aborted_workspace_leaves_nothing,
    a_stack_must_be_there,
    a_kept_workspace_can_be_opened_again,
    a_sandbox_on_a_kept_workspace_shows_it_and_leaves_it,
    equal_content_has_an_equal_diff_id,
    a_layer_measured_again_has_its_diff_id,
    a_manifest_says_what_a_layer_holds,
    workspaces_read_and_remove,
    read_stays_inside,
)
