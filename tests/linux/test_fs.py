"""Files of a running sandbox, from outside."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from linux_bench import Bench, Place

from sandboxfile.engine.files import FileKind, SandboxFiles
from sandboxfile.errors import FileRefused, FileTooLarge, SandboxfileError, SandboxGone, UsageError

pytestmark = pytest.mark.host


def trial(bench: Bench, body: Any, *, prepare: str = "true") -> Any:
    """Boot a sandbox, run a script in it, then `body(fs, place)`."""

    async def run() -> Any:
        sandbox = await bench.engine.start(bench.base)
        place = Place(sandbox)
        said = await place.sh(prepare)
        assert said.completed.exit_code == 0, said.stderr
        return await body(sandbox.fs, place)

    return bench.trial(run)


def test_what_is_written_is_what_the_sandbox_reads(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> list[str]:
        await fs.write_text_file("/tmp/a", "grüße\n")
        await fs.write_file("/tmp/a", b"more\n", append=True)
        await fs.write_file("/tmp/b", b"x" * 3_000_000, mode=0o640)
        said = await place.sh("cat /tmp/a; stat -c '%s %a %u:%g' /tmp/b")
        return said.stdout.splitlines()

    assert trial(bench, body) == ["grüße", "more", "3000000 640 0:0"]


def test_what_the_sandbox_writes_is_what_is_read(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> Any:
        big = await fs.read_file("/tmp/big")
        return await fs.read_text_file("tmp/text"), len(big), set(big)

    prepare = "echo text > /tmp/text; head -c 2500000 /dev/zero > /tmp/big"
    assert trial(bench, body, prepare=prepare) == ("text\n", 2_500_000, {0})


def test_names_that_are_no_text_go_both_ways(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> Any:
        names = [entry.name for entry in await fs.read_dir("/tmp/d")]
        content = await fs.read_file(f"/tmp/d/{names[0]}")
        await fs.write_file(b"/tmp/d/\xfe", b"")
        said = await place.sh("ls /tmp/d | od -An -tx1")
        return names, content, said.stdout.split()

    names, content, listed = trial(bench, body, prepare="mkdir /tmp/d; printf a > /tmp/d/$(printf '\\377')")
    assert (names, content) == (["\udcff"], b"a")
    assert listed == ["fe", "0a", "ff", "0a"]


def test_every_operation_does_what_its_name_says(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> str:
        await fs.mkdir("/w/a/b", recursive=True, mode=0o2750)
        await fs.write_file("/w/one", b"1234567890")
        await fs.truncate("/w/one", 4)
        await fs.copy_file("/w/one", "/w/two")
        await fs.copy_file("/w/one", "/w/one")
        await fs.rename("/w/two", "/w/a/two")
        await fs.link("/w/a/two", "/w/hard")
        await fs.symlink("a/two", "/w/soft")
        await fs.chmod("/w/soft", 0o600)
        await fs.chown("/w/one", 5, 6)
        await fs.chown("/w/one", gid=7)
        await fs.utime("/w/one", 10.0, 20.0)
        await fs.mkdir("/w/gone/deep", recursive=True)
        await fs.remove("/w/gone", recursive=True)
        assert await fs.read_link("/w/soft") == "a/two"
        assert await fs.real_path("/w/soft") == "/w/a/two"
        assert (await fs.lstat("/w/soft")).kind is FileKind.SYMLINK
        about = await fs.stat("/w/soft")
        assert (about.is_file, about.size, about.mode, about.links) == (True, 4, 0o600, 2)
        assert not await fs.exists("/w/nothing")
        temporary = await fs.make_temp_dir(prefix="t-", suffix=".d")
        assert (await fs.stat(temporary)).mode == 0o700
        assert (await fs.stat(await fs.make_temp_file(directory=temporary))).mode == 0o600
        return (
            await place.sh("cd /w; find . -printf '%p %y %m %U:%G %n %Ts\\n' | sort | cut -d' ' -f1-4")
        ).stdout

    assert trial(bench, body).splitlines() == [
        ". d 755 0:0",
        "./a d 755 0:0",
        "./a/b d 2750 0:0",
        "./a/two f 600 0:0",
        "./hard f 600 0:0",
        "./one f 644 5:7",
        "./soft l 777 0:0",
    ]


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (lambda fs: fs.read_file("/nothing"), FileNotFoundError),
        (lambda fs: fs.read_file(""), FileNotFoundError),
        (lambda fs: fs.read_file("/etc"), IsADirectoryError),
        (lambda fs: fs.read_file("/etc/passwd/x"), NotADirectoryError),
        (lambda fs: fs.read_dir("/etc/passwd"), NotADirectoryError),
        (lambda fs: fs.mkdir("/etc"), FileExistsError),
        (lambda fs: fs.mkdir("/"), FileExistsError),
        (lambda fs: fs.mkdir("/no/where"), FileNotFoundError),
        (lambda fs: fs.mkdir("/etc/passwd", recursive=True), NotADirectoryError),
        (lambda fs: fs.write_file("/etc/passwd", b"", create_new=True), FileExistsError),
        (lambda fs: fs.write_file("/tmp/new", b"", create=False), FileNotFoundError),
        (lambda fs: fs.write_file("/tmp/new/", b""), IsADirectoryError),
        (lambda fs: fs.remove("/etc"), OSError),
        (lambda fs: fs.remove("/"), OSError),
        (lambda fs: fs.remove("/tmp/.."), OSError),
        (lambda fs: fs.remove("/dev", recursive=True), OSError),
        (lambda fs: fs.read_link("/etc/passwd"), OSError),
        (lambda fs: fs.read_file("/tmp/loop"), OSError),
        (lambda fs: fs.read_file("/" + "x" * 300), OSError),
        (lambda fs: fs.read_file("/x" * 3000), OSError),
        (lambda fs: fs.read_file("/tmp/fifo"), FileRefused),
        (lambda fs: fs.write_file("/tmp/fifo", b""), FileRefused),
        (lambda fs: fs.chmod("/tmp/fifo", 0o777), FileRefused),
        (lambda fs: fs.read_file("/tmp/socket"), FileRefused),
        (lambda fs: fs.read_file("/dev/zero"), FileRefused),
        (lambda fs: fs.write_file("/dev/null", b""), FileRefused),
        (lambda fs: fs.read_file("/proc/version"), FileRefused),
        (lambda fs: fs.read_dir("/proc"), FileRefused),
        (lambda fs: fs.read_dir("/sys"), FileRefused),
        (lambda fs: fs.mkdir("/sys/fs/cgroup/new"), (FileRefused, OSError)),
        (lambda fs: fs.write_file("/proc/sys/kernel/hostname", b"x"), FileRefused),
        (lambda fs: fs.read_file("/proc/1/root/etc/passwd"), OSError),
        (lambda fs: fs.read_file("/etc/passwd", limit=3), FileTooLarge),
        (lambda fs: fs.read_file("/tmp/sparse"), FileTooLarge),
        (lambda fs: fs.read_file("/tmp/\0"), UsageError),
        (lambda fs: fs.read_file(7), UsageError),
        (lambda fs: fs.read_file("\ud800"), UsageError),
        (lambda fs: fs.write_file("/tmp/x", "text"), UsageError),
        (lambda fs: fs.chmod("/tmp", 0o10000), UsageError),
        (lambda fs: fs.chown("/tmp", 65536), UsageError),
        (lambda fs: fs.truncate("/etc/passwd", -1), UsageError),
        (lambda fs: fs.make_temp_dir(prefix="../x"), UsageError),
        (lambda fs: fs.as_user("nobody").write_file("/etc/passwd", b""), PermissionError),
        (lambda fs: fs.as_user("nobody").read_file("/etc/shadow"), PermissionError),
        (lambda fs: fs.as_user("nobody").remove("/tmp/loop"), PermissionError),
        (lambda fs: fs.as_user("who").stat("/"), UsageError),
    ],
)
def test_what_cannot_be_done_is_a_typed_error(bench: Bench, operation: Any, error: Any) -> None:
    async def body(fs: SandboxFiles, place: Place) -> None:
        with pytest.raises(error) as caught:
            await operation(fs)
        assert type(caught.value) is not SandboxfileError
        # The worker goes on.
        assert await fs.exists("/etc/passwd")

    prepare = (
        "cd /tmp; mkfifo fifo; ln -s loop loop; truncate -s 1T sparse;"
        "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un(\"socket\"))'"
    )
    trial(bench, body, prepare=prepare)


def test_an_error_names_the_path_as_the_sandbox_knows_it(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> Any:
        with pytest.raises(FileNotFoundError) as caught:
            await fs.read_file("/no/such/file")
        return caught.value.filename

    assert trial(bench, body) == "/no/such/file"


def test_links_lead_nowhere_but_into_the_sandbox(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this machine")

    async def body(fs: SandboxFiles, place: Place) -> Any:
        await fs.symlink(f"../../../../../..{secret}", "/tmp/up")
        await fs.symlink(str(secret), "/tmp/absolute")
        await fs.symlink("/etc", "/tmp/etc")
        for name in ("up", "absolute"):
            with pytest.raises(FileNotFoundError):
                await fs.read_file(f"/tmp/{name}")
        with pytest.raises(FileNotFoundError):
            await fs.read_file(f"/../../..{secret}")
        await fs.write_file("/tmp/etc/new", b"inside")
        return (await place.sh("cat /etc/new")).stdout

    assert trial(bench, body) == "inside"
    assert not Path("/etc/new").exists()


def test_users_have_their_own_rights_and_own_what_they_make(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> str:
        await fs.as_user("www-data").write_file("/tmp/web", b"")
        await fs.as_user("1000:5").mkdir("/tmp/numbers")
        # Membership in a group counts.
        await place.sh("echo team:x:3000:nobody >> /etc/group; mkdir -m 770 /team; chgrp team /team")
        await fs.as_user("nobody").write_file("/team/file", b"")
        return (await place.sh("stat -c '%U:%G' /tmp/web /team/file; stat -c %u:%g /tmp/numbers")).stdout

    assert trial(bench, body).split() == ["www-data:www-data", "nobody:nogroup", "1000:5"]


def test_trees_go_in_and_come_out_unchanged(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "deep" / "er").mkdir(parents=True, mode=0o750)
    (source / "deep" / "er" / "file").write_bytes(os.urandom(200_000))
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    (source / "link").symlink_to("deep/er/file")
    os.mkfifo(source / "fifo")

    async def body(fs: SandboxFiles, place: Place) -> Any:
        sent = await fs.upload(source, "/srv/tree")
        again = await fs.upload(source, "/srv/tree")
        await place.sh("mkfifo /srv/tree/pipe; chmod u+s /srv/tree/tool")
        with_links = await fs.download("/srv/tree", tmp_path / "with", links=True)
        without = await fs.download("/srv/tree", tmp_path / "without")
        one = await fs.download("/srv/tree/tool", tmp_path / "one")
        with pytest.raises(FileExistsError):
            await fs.download("/srv/tree", tmp_path / "with")
        with pytest.raises(FileTooLarge):
            await fs.download("/srv/tree", tmp_path / "limited", limit=1000)
        return sent, again, with_links, without, one

    sent, again, with_links, without, one = trial(bench, body)
    assert (sent.files, sent.directories, sent.links) == (2, 4, 1)
    assert sent.skipped == [str(source / "fifo")]
    assert again == sent
    assert (with_links.files, with_links.links, with_links.skipped) == (2, 1, ["/srv/tree/pipe"])
    assert (without.links, without.skipped) == (0, ["/srv/tree/link", "/srv/tree/pipe"])
    assert one.files == 1

    def listing(top: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(top)): (stat.S_IMODE(path.lstat().st_mode), path.read_bytes())
            for path in top.rglob("*")
            if path.is_file()
        }

    assert listing(tmp_path / "with") == listing(source)
    assert os.readlink(tmp_path / "with" / "link") == "deep/er/file"
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o755


def test_walk_meets_everything_once_and_follows_no_link(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> Any:
        everything = [entry.path async for entry in fs.walk("/w")]
        shallow = [entry.path async for entry in fs.walk("/w", max_depth=1)]
        kernel = [entry.path async for entry in fs.walk("/") if entry.path.startswith("/proc")]
        return everything, shallow, kernel

    everything, shallow, kernel = trial(
        bench, body, prepare="mkdir -p /w/a/b /w/c; touch /w/a/f /w/c/g; ln -s .. /w/a/up"
    )
    assert sorted(everything) == ["/w/a", "/w/a/b", "/w/a/f", "/w/a/up", "/w/c", "/w/c/g"]
    assert shallow == ["/w/a", "/w/c"]
    assert kernel == ["/proc"]


def test_the_deepest_tree_can_be_removed(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> bool:
        await fs.remove("/tmp/deep", recursive=True)
        return await fs.exists("/tmp/deep")

    deep = 'mkdir /tmp/deep; cd /tmp/deep; perl -e \'for (1..3000) { mkdir "d"; chdir "d" }\''
    assert trial(bench, body, prepare=deep) is False


def test_a_mount_is_not_removed_with_the_tree_it_lies_in(bench: Bench) -> None:
    async def body(fs: SandboxFiles, place: Place) -> Any:
        for path in ("/run", "/dev", "/dev/shm", "/dev/null", "/run/sandboxfile/init"):
            with pytest.raises(OSError, match="busy"):
                await fs.remove(path, recursive=True)
        with pytest.raises(OSError, match="busy"):
            await fs.rename("/dev/null", "/tmp/null")
        with pytest.raises(OSError, match="busy"):
            await fs.rename("/etc/hostname", "/run/sandboxfile/init")
        return (await place.sh("test -c /dev/null && test -x /run/sandboxfile/init && echo there")).stdout

    assert trial(bench, body) == "there\n"


def test_a_full_disk_is_said_to_be_full(bench: Bench) -> None:
    from sandboxfile.engine.base import Limits

    async def run() -> Any:
        sandbox = await bench.engine.start(bench.base, limits=Limits(disk=2_000_000))
        with pytest.raises(OSError, match="space") as caught:
            await sandbox.fs.write_file("/tmp/big", b"x" * 8_000_000)
        return caught.value.filename

    assert bench.trial(run) == "/tmp/big"


def test_a_closed_sandbox_has_no_files(bench: Bench) -> None:
    async def run() -> None:
        sandbox = await bench.engine.start(bench.base)
        await sandbox.fs.stat("/")
        await sandbox.close()
        with pytest.raises(SandboxfileError, match="has ended"):
            await sandbox.fs.stat("/")

    bench.trial(run)


def test_file_operations_leave_no_descriptors_and_no_processes(bench: Bench) -> None:
    async def run() -> tuple[int, int]:
        sandbox = await bench.engine.start(bench.base)
        await sandbox.close()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            sandbox = await bench.engine.start(bench.base)
            for _ in range(20):
                await sandbox.fs.write_file("/tmp/a", b"a")
                await sandbox.fs.read_file("/tmp/a")
                with pytest.raises(FileNotFoundError):
                    await sandbox.fs.read_file("/tmp/b")
            await sandbox.close()
        return before, len(os.listdir("/proc/self/fd"))

    before, after = bench.trial(run)
    assert after == before


def test_closing_a_sandbox_ends_what_is_being_copied(bench: Bench) -> None:
    async def run() -> str:
        sandbox = await bench.engine.start(bench.base)
        await Place(sandbox).sh("truncate -s 1T /tmp/sparse")
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0) as pipe:
            copying = asyncio.ensure_future(sandbox.fs.read_into("/tmp/sparse", writer))
            await asyncio.to_thread(pipe.read, 1)
            # The copy has a descriptor of its own; when it ends, the pipe does.
            os.close(writer)
            closing = asyncio.ensure_future(sandbox.close())
            while await asyncio.to_thread(pipe.read, 1 << 20):
                pass
            await closing
        with pytest.raises(SandboxGone) as caught:
            await copying
        return caught.value.message

    assert bench.trial(run) == "the sandbox has ended"
