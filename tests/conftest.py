"""Fixtures for every test: what the host must have, and one store with a bootstrapped base."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How fast examples are made says how busy the machine is, not whether a test is any good.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@functools.cache
def missing(marker: str) -> str | None:
    """Why tests with a marker cannot run here, None when they can."""
    if marker == "root":
        return None if os.geteuid() == 0 else "needs to be root"
    if marker == "host":
        from sandboxfile.api import doctor

        problems = [f"{r.name}: {r.remedy}" for r in doctor() if r.needed and not r.ok]
        return "; ".join(problems) or None
    if marker == "network":
        from sandboxfile.inputs.environment import default_mirrors

        try:
            return None if default_mirrors("trixie") else "no mirrors known"
        except Exception as error:
            return f"no mirrors known: {error}"
    return None


@pytest.fixture(autouse=True)
def _requirements(request: pytest.FixtureRequest) -> None:
    for marker in ("root", "host", "network"):
        if request.node.get_closest_marker(marker):
            reason = missing(marker)
            if reason and CI:
                pytest.fail(f"CI has to run this test, but: {reason}")
            if reason:
                pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for the whole session, so that its base is bootstrapped once."""
    given = os.environ.get("SANDBOXFILE_TEST_HOME")
    home = Path(given) if given else tmp_path_factory.mktemp("store") / "home"
    yield home
    if not given:
        remove_store(home)


def remove_store(home: Path) -> None:
    """Delete a store; what belongs to ids of sandboxes needs root, who may be its owner only."""
    if home.exists():
        subprocess.run(
            [sys.executable, "-m", "sandboxfile", "--home", str(home), "cache", "gc", "--all"],
            check=False,
            capture_output=True,
        )
        shutil.rmtree(home, ignore_errors=True)


BASE_ONLY = "name: base\nbase: debian:13\n"


def base_document(directory: Path) -> str:
    """The Sandboxfile of the base: bootstrapped, or a tar of one where there is no archive to reach."""
    given = os.environ.get("SANDBOXFILE_TEST_BASE")
    if not given:
        return BASE_ONLY
    shutil.copyfile(given, directory / "base.tar")
    with open(given, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"name: base\nbase: {{rootfs: base.tar, sha256: {digest}}}\n"


@pytest.fixture(scope="session")
def base_project(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with nothing but a Debian base, built."""
    directory = tmp_path_factory.mktemp("base")
    (directory / "Sandboxfile").write_text(base_document(directory))
    from sandboxfile.api import AsyncClient

    async def build() -> None:
        async with AsyncClient(home=shared_home) as client:
            await client.build(client.load(directory=directory))

    asyncio.run(build())
    return directory


@pytest.fixture(scope="session")
def base_lock(base_project: Path) -> str:
    """The lock of that base, for projects that build on it without resolving it again."""
    return (base_project / "sandboxfile.lock").read_text()


@pytest.fixture
def linux_base(shared_home: Path, base_project: Path) -> Any:
    """(engine, stack) of the linux engine with a Debian base, for the conformance suite."""
    from sandboxfile.api import AsyncClient

    client = AsyncClient(home=shared_home)
    snapshot = client.snapshot("base")
    client.store.close()
    return client.engine, snapshot.layers
