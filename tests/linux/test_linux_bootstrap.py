"""A Debian base by root and by an ordinary user: the same bytes, the same promises."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from linux_bench import PATH, Bench

from sandboxfile.core.layer import DebianBase, PackagePin
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import BuildError

NAME = "sandboxfile-test"
AT_LEAST_3_11 = "import sys; sys.exit(sys.version_info < (3, 11))"
PACKAGE = Path(__file__).resolve().parents[2] / "sandboxfile"

USER = """
import asyncio, hashlib, json, sys
from pathlib import Path
from sandboxfile.core.layer import DebianBase, PackagePin, layer_key
from sandboxfile.engines.linux.engine import LinuxEngine
from sandboxfile.errors import HostError
from sandboxfile.store.store import Store
from sandboxfile.testing.conformance import PROMISES

async def main():
    record = json.loads(Path(sys.argv[2]).read_text())
    record["packages"] = tuple(PackagePin(**each) for each in record["packages"])
    record |= {name: tuple(record[name]) for name in ("components", "parents")}
    base = DebianBase(**record)
    debs = {path.name: path for path in Path(sys.argv[3]).iterdir()}
    # A detached sandbox's keeper holds its layers in the store.
    Store.open(Path(sys.argv[1])).close()
    engine = LinuxEngine(Path(sys.argv[1]))
    workspace = await engine.bootstrap(base, debs, lambda stream, data: None)
    key = layer_key(base)
    committed = await workspace.commit(base, key)
    broken = {}
    lacking = sorted({need for promise in PROMISES for need in promise.needs - engine.capabilities})
    for promise in PROMISES:
        if promise.needs - engine.capabilities:
            continue
        try:
            await promise(engine, (key,))
        except Exception as error:
            broken[promise.name] = f"{type(error).__name__}: {error}"
    try:
        await engine.start((key,), network="full")
        network = "works"
    except HostError as error:
        network = error.hint
    await engine.remove([key])
    await engine.sweep()
    await engine.close()
    # Compiled system call profiles are kept for the next time, and the files of locks for gc.
    kept = ("seccomp", "locks", "blobs")
    left = [str(path) for path in Path(sys.argv[1]).glob("*/*") if path.parent.name not in kept]
    print(json.dumps({"diff_id": committed.diff_id, "broken": broken, "network": network,
                      "left": left, "lacking": lacking}))

asyncio.run(main())
"""


@pytest.fixture
def ordinary_user() -> Iterator[pwd.struct_passwd]:
    """A user without any rights but a subordinate range."""
    subprocess.run(["userdel", "-r", NAME], check=False, capture_output=True)
    subprocess.run(["useradd", "-m", NAME], check=True, capture_output=True)
    ranges = Path("/etc/subuid").read_text()
    if f"{NAME}:" not in ranges:
        subprocess.run(
            ["usermod", "--add-subuids", "600000-665535", "--add-subgids", "600000-665535", NAME], check=True
        )
    user = pwd.getpwnam(NAME)
    os.chmod(user.pw_dir, 0o700)
    yield user
    subprocess.run(["userdel", "-r", NAME], check=False, capture_output=True)


def base_of(bench: Bench) -> dict[str, Any]:
    record = json.loads((bench.engine.layers.directory(bench.base[0]) / "layer.json").read_text())
    definition: dict[str, Any] = json.loads(record["preimage"])[1]["definition"]
    return definition


@pytest.mark.host
@pytest.mark.root
def test_an_ordinary_user_makes_the_same_bytes_and_all_promises_hold(
    bench: Bench, ordinary_user: pwd.struct_passwd
) -> None:
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", AT_LEAST_3_11], check=False).returncode:
        pytest.skip("the user has no Python 3.11 outside of root's home")
    user_home = Path(ordinary_user.pw_dir)
    definition = base_of(bench)
    debs = user_home / "debs"
    debs.mkdir()
    blobs = bench.engine.layers.home / "blobs" / "sha256"
    for package in definition["packages"]:
        digest = package["sha256"]
        shutil.copy(blobs / digest[:2] / digest[2:], debs / digest)
    (user_home / "base.json").write_text(json.dumps(definition))
    shutil.copytree(PACKAGE, user_home / "lib" / "sandboxfile", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chown", "-R", f"{NAME}:", str(user_home)], check=True)
    done = subprocess.run(
        ["runuser", "-u", NAME, "--", "env", f"PYTHONPATH={user_home}/lib", f"PATH={PATH}", python,
         "-c", USER, f"{user_home}/.store", f"{user_home}/base.json", str(debs)],
        capture_output=True, text=True, check=False, cwd="/", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["broken"] == {}
    # Nothing else is lacking, and these only where no control groups are delegated.
    assert set(said["lacking"]) <= {"hard-memory", "hard-cpu", "volume-capacity"}
    assert said["diff_id"] == bench.engine.layers.sealed(bench.base[0]).committed.diff_id
    assert said["network"] in ("works", "sudo chmod 0666 /dev/net/tun")
    assert said["left"] == []


@pytest.mark.host
def test_the_base_holds_nothing_of_this_machine(bench: Bench) -> None:
    async def body() -> dict[str, bytes]:
        workspace = await bench.engine.prepare(bench.base)
        paths = (
            "/etc/hostname",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/usr/sbin/policy-rc.d",
        )
        found = {path: await workspace.read(path) for path in paths}
        with pytest.raises(FileNotFoundError):
            await workspace.read("/etc/apt/sources.list")
        return found

    found = bench.trial(body)
    assert found["/etc/hostname"] == b"sandbox\n"
    assert b"sandbox" in found["/etc/hosts"]
    assert found["/etc/resolv.conf"] == b""
    assert b"exit 101" in found["/usr/sbin/policy-rc.d"]


@pytest.mark.host
def test_packages_that_were_not_fetched_are_named(empty_engine: LinuxEngine) -> None:
    base = DebianBase("trixie", "amd64", (PackagePin("dash", "1", "amd64", "0" * 64),), 0)

    async def body() -> None:
        try:
            await empty_engine.bootstrap(base, {}, lambda stream, data: None)
        finally:
            await empty_engine.close()

    with pytest.raises(BuildError, match="dash"):
        asyncio.run(body())
    assert list((empty_engine.layers.home / "workspaces").iterdir()) == []
