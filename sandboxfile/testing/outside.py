"""Promises on a sandbox's files from outside: `Sandbox.fs`."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable
from pathlib import Path

from sandboxfile.engine.files import FileKind
from sandboxfile.errors import FileRefused, FileTooLarge, SandboxfileError, UsageError
from sandboxfile.testing.promise import Lab, expect, holds, promise


async def _refused(operation: Awaitable[object], error: type[Exception]) -> None:
    """Raise AssertionError unless an operation raises this error, which names a path if it is an OSError."""
    try:
        await operation
    except error as raised:
        if isinstance(raised, OSError):
            holds(bool(raised.filename), "the error does not name the path")
        return
    raise AssertionError(f"{error.__name__} was expected")


@promise()
async def files_go_both_ways(lab: Lab) -> None:
    """What is written from outside is read inside, and the other way round, byte for byte."""
    sandbox = await lab.sandbox()
    content = bytes(range(256)) * 5000
    await sandbox.fs.write_file("/tmp/out", content)
    await sandbox.fs.write_text_file("/tmp/text", "first\n")
    await sandbox.fs.write_text_file("/tmp/text", "grüße\n", append=True)
    expect(await lab.succeed(sandbox, "cat /tmp/text"), "first\ngrüße")
    await lab.succeed(sandbox, "cat /tmp/out > /tmp/back; echo inside > /tmp/in")
    expect(await sandbox.fs.read_file("/tmp/back"), content)
    expect(await sandbox.fs.read_text_file("/tmp/in"), "inside\n")


@promise()
async def entries_can_be_made_changed_and_removed_from_outside(lab: Lab) -> None:
    """Directories, links, permission bits, owners, names and lengths are as they were set."""
    sandbox = await lab.sandbox()
    fs = sandbox.fs
    await fs.mkdir("/opt/a/b", recursive=True)
    await fs.mkdir("/opt/private", mode=0o700)
    await fs.write_file("/opt/a/one", b"123456", mode=0o640)
    await fs.truncate("/opt/a/one", 3)
    await fs.copy_file("/opt/a/one", "/opt/a/two")
    await fs.rename("/opt/a/two", "/opt/a/three")
    await fs.chown("/opt/a/three", 1, 1)
    await fs.chmod("/opt/a/three", 0o600)
    await fs.symlink("a/one", "/opt/link")
    await fs.mkdir("/opt/gone/deep", recursive=True)
    await fs.remove("/opt/gone", recursive=True)
    expect(await fs.read_link("/opt/link"), "a/one")
    expect(await fs.real_path("/opt/link"), "/opt/a/one")
    shown = await lab.succeed(
        sandbox, "cd /opt; stat -c '%a %u:%g %n' private a/one a/three; cat link; ls a; ls"
    )
    expect(shown, "700 0:0 private\n640 0:0 a/one\n600 1:1 a/three\n123b\none\nthree\na\nlink\nprivate")


@promise()
async def what_is_told_of_entries_is_true(lab: Lab) -> None:
    """`stat` follows links, `lstat` does not, and a directory's entries come with their kinds."""
    sandbox = await lab.sandbox()
    await lab.succeed(sandbox, "cd /opt; mkdir d; printf 1234 > d/f; chmod 604 d/f; ln -s f d/l; mkdir d/s")
    followed, itself = await sandbox.fs.stat("/opt/d/l"), await sandbox.fs.lstat("/opt/d/l")
    expect((followed.kind, followed.size, followed.mode), (FileKind.FILE, 4, 0o604))
    expect(itself.kind, FileKind.SYMLINK)
    expect(
        [(entry.name, str(entry.kind)) for entry in await sandbox.fs.read_dir("/opt/d")],
        [("f", "file"), ("l", "symlink"), ("s", "directory")],
    )
    walked = [entry.path async for entry in sandbox.fs.walk("/opt")]
    expect(walked, ["/opt/d", "/opt/d/f", "/opt/d/l", "/opt/d/s"])


@promise()
async def file_operations_fail_as_they_do_in_python(lab: Lab) -> None:
    """What cannot be done is the OSError that Python has for it, with the path; what is wrongly asked for is
    a UsageError, more than a limit FileTooLarge, a device FileRefused."""
    fs = (await lab.sandbox()).fs
    await _refused(fs.read_file("/opt/nothing"), FileNotFoundError)
    await _refused(fs.read_file("/opt"), IsADirectoryError)
    await _refused(fs.read_dir("/etc/passwd"), NotADirectoryError)
    await _refused(fs.mkdir("/opt"), FileExistsError)
    await _refused(fs.write_file("/etc/passwd", b"", create_new=True), FileExistsError)
    await _refused(fs.write_file("/opt/new", b"", create=False), FileNotFoundError)
    await _refused(fs.remove("/etc"), OSError)
    await _refused(fs.remove("/"), OSError)
    await _refused(fs.read_link("/etc/passwd"), OSError)
    await _refused(fs.read_file("/etc/passwd", limit=3), FileTooLarge)
    await _refused(fs.read_file("/dev/zero"), FileRefused)
    await _refused(fs.read_file("/opt/\0"), UsageError)
    await _refused(fs.chmod("/opt", 0o10000), UsageError)
    await _refused(fs.chown("/opt", 70_000), UsageError)
    await _refused(fs.truncate("/etc/passwd", -1), UsageError)


@promise()
async def links_are_followed_inside_of_the_sandbox_only(lab: Lab) -> None:
    """An absolute link, and one with too many `..`, lead to the sandbox's own files."""
    sandbox = await lab.sandbox()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        path.write_text("of this machine")
        for number, target in enumerate((str(path), "../" * 20 + str(path)[1:])):
            await sandbox.fs.symlink(target, f"/opt/link{number}")
            await _refused(sandbox.fs.read_file(f"/opt/link{number}"), FileNotFoundError)
    await sandbox.fs.symlink("../" * 20 + "etc/hostname", "/opt/own")
    expect(
        await sandbox.fs.read_file("/opt/own"),
        (await lab.succeed(sandbox, "cat /etc/hostname")).encode() + b"\n",
    )


@promise()
async def file_operations_have_the_rights_of_a_user(lab: Lab) -> None:
    """With `as_user`, what is made belongs to that user, and what the user may not do is PermissionError."""
    sandbox = await lab.sandbox()
    await sandbox.fs.write_file("/opt/secret", b"", mode=0o600)
    theirs = sandbox.fs.as_user("nobody")
    await theirs.write_file("/tmp/theirs", b"")
    expect(await lab.succeed(sandbox, "stat -c %U /tmp/theirs"), "nobody")
    await _refused(theirs.read_file("/opt/secret"), PermissionError)
    await _refused(theirs.write_file("/opt/new", b""), PermissionError)
    await _refused(sandbox.fs.as_user("nobody-at-all").stat("/"), UsageError)


@promise()
async def trees_are_uploaded_and_downloaded(lab: Lab) -> None:
    """A tree comes out as it went in; a target that exists is FileExistsError, and nothing is downloaded
    through a link."""
    sandbox = await lab.sandbox()
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "source" / "sub").mkdir(parents=True)
        (top / "source" / "sub" / "file").write_bytes(b"\0\1" * 3000)
        (top / "source" / "link").symlink_to("sub/file")
        sent = await sandbox.fs.upload(top / "source", "/opt/tree")
        expect((sent.files, sent.directories, sent.links, sent.bytes), (1, 2, 1, 6000))
        got = await sandbox.fs.download("/opt/tree", top / "target")
        expect((got.files, got.directories, got.skipped), (1, 2, ["/opt/tree/link"]))
        expect((top / "target" / "sub" / "file").read_bytes(), b"\0\1" * 3000)
        await _refused(sandbox.fs.download("/opt/tree", top / "target"), FileExistsError)
        await _refused(sandbox.fs.download("/opt/tree", top / "small", limit=100), FileTooLarge)


@promise()
async def new_names_are_new(lab: Lab) -> None:
    """Temporary files and directories get names that nothing has, and are for their owner alone."""
    sandbox = await lab.sandbox()
    made = {await sandbox.fs.make_temp_dir(prefix="p-", suffix="-s") for _ in range(5)}
    made |= {await sandbox.fs.make_temp_file(directory="/opt") for _ in range(5)}
    expect(len(made), 10)
    kinds = [(about.kind, about.mode) for about in [await sandbox.fs.stat(path) for path in sorted(made)]]
    expect(kinds, [(FileKind.FILE, 0o600)] * 5 + [(FileKind.DIRECTORY, 0o700)] * 5)


@promise()
async def a_closed_sandbox_has_no_files(lab: Lab) -> None:
    """After `close`, operations on files are refused."""
    sandbox = await lab.sandbox()
    await sandbox.fs.write_file("/opt/file", b"")
    await sandbox.close()
    await _refused(sandbox.fs.read_file("/opt/file"), SandboxfileError)


PROMISES = (
    files_go_both_ways,
    entries_can_be_made_changed_and_removed_from_outside,
    what_is_told_of_entries_is_true,
    file_operations_fail_as_they_do_in_python,
    links_are_followed_inside_of_the_sandbox_only,
    file_operations_have_the_rights_of_a_user,
    trees_are_uploaded_and_downloaded,
    new_names_are_new,
    a_closed_sandbox_has_no_files,
)
