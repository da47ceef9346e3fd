"""A blob store, settings, a web server and a signed archive."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxfile.core.event import Event
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.settings import Settings
from sandboxfile.store.store import Store
from tests.resolve.repository import Repository, Signer
from tests.resolve.server import Server


class Recorder:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "store", timeout=10.0)


@pytest.fixture
def downloader(store: Store, settings: Settings, recorder: Recorder) -> Downloader:
    return Downloader(store.blobs, settings, recorder)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "web"
    directory.mkdir()
    server = Server(directory)
    yield server
    server.close()


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    if shutil.which("gpg") is None:
        pytest.skip("needs gpg to sign an archive: apt-get install gpg")
    # gpg-agent's socket path is limited to about 100 characters.
    made = Signer(tmp_path_factory.mktemp("k") / "h")
    yield made
    made.close()


@pytest.fixture
def repository(web: Server, signer: Signer) -> Repository:
    made = Repository(web.directory, signer)
    made.add("alpha", "1.0", depends="beta (>= 1)")
    made.add("beta", "2.0", provides="virtual-thing")
    made.publish()
    return made
