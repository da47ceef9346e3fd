"""A project on a small archive of real packages whose versions a test moves; one base for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxfile.spec.lock import Lockfile
from sandboxfile.spec.lockfile import load
from tests.e2e.program import Program
from tests.resolve.real_archive import RealArchive
from tests.resolve.repository import Signer
from tests.resolve.server import Server

SEEDS = (
    "jq", "tree", "ed", "nano", "cron", "uuid-runtime", "zlib1g-dev", "bsd-mailx", "postfix", "python3",
)  # fmt: skip
OLD_ZLIB = "1:1.3.dfsg+really1.3.1-0"


@pytest.fixture(scope="session")
def archive_signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    made = Signer(tmp_path_factory.mktemp("k") / "h")
    yield made
    made.close()


@pytest.fixture(scope="session")
def archive_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("archive"))
    yield server
    server.close()


class World:
    """An archive, and a project on its base."""

    def __init__(self, archive: RealArchive, program: Program, lock: str) -> None:
        self.archive = archive
        self.program = program
        self.name = "rules"
        self._lock = lock

    def start(self, rest: str) -> Program:
        """The project with this Sandboxfile after its base line, locked on the base that is built already."""
        self.program.write(self._lock, "sandboxfile.lock")
        # What was seen of the archive an hour ago may be what another test made of it.
        self.relock(rest)
        return self.program

    def ask(self, rest: str) -> None:
        """Change the Sandboxfile."""
        self.program.write(f"name: {self.name}\nbase: debian:13\n{rest}")

    def lock(self) -> Lockfile:
        """The lock as it is."""
        return load((self.program.directory / "sandboxfile.lock").read_text())

    def relock(self, rest: str, *args: str) -> list[str]:
        """Change the Sandboxfile and lock it; what changed."""
        self.ask(rest)
        return self.program("lock", "--refresh", *args).stdout.splitlines()

    def keys(self) -> dict[str, str]:
        """The key of each planned layer by its name."""
        document = json.loads(self.program("plan", "--json").stdout)
        return {layer["name"]: layer["key"] for layer in document["layers"]}

    def installed(self, target: str = ".") -> dict[str, str]:
        """Names and versions that dpkg has on record in a built environment."""
        query = ("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n")
        lines = [line.split() for line in self.program("run", target, "--", *query).stdout.splitlines()]
        assert {line[2] for line in lines} == {"ii"}
        return {line[0]: line[1] for line in lines}


@pytest.fixture(scope="session")
def old_base(
    archive_server: Server,
    archive_signer: Signer,
    shared_home: Path,
    base_project: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, dict[str, str]], Path, str]:
    """The archive before any security update, a settings file for it, and the lock of its base."""
    archive = RealArchive.of_store(shared_home / "indexes", archive_server, archive_signer)
    archive.take_base()
    archive.take(*SEEDS)
    archive.age("zlib1g", OLD_ZLIB)
    archive.publish()
    directory = tmp_path_factory.mktemp("base")
    settings = archive.settings(directory / "settings.toml")
    program = Program(directory, shared_home, {"SANDBOXFILE_CONFIG": str(settings)})
    program.write("name: rules-base\nbase: debian:13\n")
    program("build")
    return archive.suites, settings, (directory / "sandboxfile.lock").read_text()


@pytest.fixture
def world(
    old_base: tuple[dict[str, dict[str, str]], Path, str],
    archive_server: Server,
    archive_signer: Signer,
    shared_home: Path,
    project: Program,
) -> World:
    """The archive as it was at first, published, and an empty project."""
    suites, settings, lock = old_base
    archive = RealArchive.of_store(shared_home / "indexes", archive_server, archive_signer)
    archive.suites = {name: dict(stanzas) for name, stanzas in suites.items()}
    archive.publish()
    project.env = {"SANDBOXFILE_CONFIG": str(settings)}
    return World(archive, project, lock)
