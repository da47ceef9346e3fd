"""Whole locks: apt solved by the apt of a real base in a real sandbox, on a signed archive of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxfile.api import AsyncClient
from sandboxfile.build.lockmaker import make_lock
from sandboxfile.core.digest import Digest
from sandboxfile.errors import IntegrityError, ResolveError, Source, Span
from sandboxfile.inputs import aptsolver
from sandboxfile.spec.lock import DebRow, LockedBase, Lockfile
from sandboxfile.spec.lockfile import load
from sandboxfile.spec.model import Apt, AptRequest, AptSource, DebianRequest, Pip, PipRequest, Sandboxfile
from sandboxfile.spec.requests import requests_of
from tests.resolve.repository import Repository
from tests.resolve.server import Server

pytestmark = [pytest.mark.host, pytest.mark.network]


@dataclass
class Locker:
    """Locks apt requests on the shared base, with the archive of the test as a source."""

    client: AsyncClient
    repository: Repository
    web: Server
    base: Lockfile
    directory: Path
    loop: asyncio.Runner

    def lock(
        self,
        lock: Lockfile | None,
        *apt: AptRequest | str,
        pip: tuple[str, ...] = (),
        refresh: bool = False,
        update: tuple[str, ...] | None = None,
    ) -> tuple[Lockfile, tuple[str, ...]]:
        texts = [str(request) for request in apt]
        source = Source("Sandboxfile", "\n".join([*texts, *pip]))
        requests = tuple(
            AptRequest(
                name=r.name if isinstance(r, AptRequest) else r,
                version=r.version if isinstance(r, AptRequest) else None,
                span=Span(source, n, 1, len(str(r))),
            )
            for n, r in enumerate(apt, 1)
        )
        key = self.repository.signer.public(armoured=True).decode()
        archive = AptSource("tests", (self.web.url,), ("stable",), ("main",), key)
        spec = Sandboxfile(
            "t",
            DebianRequest("trixie"),
            apt=Apt(requests, (archive,)),
            pip=Pip(span=Span(source, len(texts) + 1, 1)),
        )
        pip_requests = tuple(PipRequest(text) for text in pip)

        async def build_base(base: LockedBase) -> Digest | None:
            return base.diff_id

        return self.loop.run(
            make_lock(
                spec,
                requests_of(spec, pip_requests=pip_requests, inputs={}),
                pip_requests,
                lock or self.base,
                directory=self.directory,
                engine=self.client.engine,
                store=self.client.store,
                settings=self.client.settings,
                reporter=self.client.reporter,
                build_base=build_base,
                refresh=refresh,
                update=update,
            )
        )


@pytest.fixture
def locker(
    repository: Repository, web: Server, base_lock: str, shared_home: Path, tmp_path: Path
) -> Iterator[Locker]:
    with asyncio.Runner() as loop:
        client = AsyncClient(home=shared_home)
        yield Locker(client, repository, web, load(base_lock), tmp_path, loop)
        loop.run(client.close())


def rows(lock: Lockfile, group: int) -> dict[str, DebRow]:
    apt = lock.groups[group].apt
    assert apt is not None
    return {row.name: row for row in apt.rows}


def test_a_request_becomes_one_group_with_what_it_needs(locker: Locker) -> None:
    lock, changes = locker.lock(None, "alpha")
    assert changes == ("+ alpha 1.0", "+ beta 2.0")
    assert [group.apt and group.apt.requests for group in lock.groups] == [("alpha",)]
    assert {name: row.auto for name, row in rows(lock, 0).items()} == {"alpha": False, "beta": True}
    assert {row.archive for row in rows(lock, 0).values()} == {"tests"}
    assert rows(lock, 0)["alpha"].path == "pool/alpha_1.0_all.deb"
    again, nothing = locker.lock(lock, "alpha")
    assert (again, nothing) == (lock, ())


def test_an_added_request_is_a_group_on_top_of_what_is_locked(locker: Locker) -> None:
    first, _ = locker.lock(None, "alpha")
    locker.repository.add("beta", "2.5")
    locker.repository.add("gamma", "1.0", depends="beta")
    locker.repository.publish()
    second, changes = locker.lock(first, "gamma", "alpha", refresh=True)
    assert second.groups[0] == first.groups[0]
    assert changes == ("+ gamma 1.0",)


def test_a_forced_upgrade_is_a_row_that_says_why(locker: Locker) -> None:
    first, _ = locker.lock(None, "alpha")
    locker.repository.add("beta", "3.0")
    locker.repository.add("needs-beta-3", "1.0", depends="beta (>= 3)")
    locker.repository.publish()
    second, changes = locker.lock(first, "alpha", "needs-beta-3", refresh=True)
    assert second.groups[0] == first.groups[0]
    assert rows(second, 1)["beta"].replaces == "2.0"
    assert rows(second, 1)["beta"].because == "needs-beta-3"
    assert changes == ("~ beta 2.0 -> 3.0 (forced by needs-beta-3)", "+ needs-beta-3 1.0")
    assert second.installed_debs()["beta:all"].version == "3.0"


def test_a_forced_removal_of_what_nobody_asked_for_is_a_row(locker: Locker) -> None:
    locker.repository.add("agent-one", provides="agent")
    locker.repository.add("agent-two", provides="agent", conflicts="agent")
    locker.repository.add("user", depends="agent-one | agent")
    locker.repository.publish()
    first, _ = locker.lock(None, "user")
    assert "agent-one" in rows(first, 0)
    second, _ = locker.lock(first, "user", "agent-two")
    apt = second.groups[1].apt
    assert apt is not None
    assert [(r.name, r.because) for r in apt.removed] == [("agent-one", "agent-two")]
    assert "agent-one:all" not in second.installed_debs()


def test_requests_that_do_not_go_together_are_both_named(locker: Locker) -> None:
    locker.repository.add("enemy", conflicts="alpha")
    locker.repository.publish()
    first, _ = locker.lock(None, "alpha")
    for before in (first, None):
        with pytest.raises(ResolveError) as caught:
            locker.lock(before, "alpha", "enemy")
        assert "`alpha` and `enemy`" in caught.value.message
        (issue,) = caught.value.issues
        assert issue.span is not None
        assert issue.span.line == 1
        assert [span.line for _, span in issue.related] == [2]


def test_unknown_packages_come_all_at_once_with_their_places(locker: Locker) -> None:
    with pytest.raises(ResolveError) as caught:
        locker.lock(None, "alpha", "alphaa", "no-such-thing-at-all")
    issues = caught.value.issues
    assert [(i.code, i.span and i.span.line) for i in issues] == [
        ("unknown-package", 2),
        ("unknown-package", 3),
    ]
    assert issues[0].hint == "did you mean `alpha`?"


def test_a_version_is_a_pin_on_everything_of_its_source(locker: Locker) -> None:
    for version in ("1.0", "2.0"):
        locker.repository.add("tool", version, source="kit", depends=f"libtool-x (= {version})")
        locker.repository.add("libtool-x", version, source="kit")
    locker.repository.publish()
    lock, _ = locker.lock(None, AptRequest("tool", version="1.0"))
    assert {name: row.version for name, row in rows(lock, 0).items()} == {"tool": "1.0", "libtool-x": "1.0"}
    with pytest.raises(ResolveError) as caught:
        locker.lock(None, AptRequest("tool", version="9"))
    assert caught.value.issues[0].hint == "there is: 1.0, 2.0"


def test_a_virtual_package_with_one_provider_marks_the_provider_as_asked_for(locker: Locker) -> None:
    lock, _ = locker.lock(None, "virtual-thing")
    assert {name: row.auto for name, row in rows(lock, 0).items()} == {"beta": False}


def test_what_stays_keeps_its_version_though_the_archive_has_moved_on(locker: Locker) -> None:
    locker.repository.add("gamma")
    locker.repository.publish()
    first, _ = locker.lock(None, "alpha", "gamma")
    locker.repository.debs = []
    for name in ("alpha", "beta", "gamma"):
        locker.repository.add(name, "9.0")
    locker.repository.publish()
    second, changes = locker.lock(first, "alpha", refresh=True)
    assert changes == ("- gamma 1.0",)
    assert {name: row.version for name, row in rows(second, 0).items()} == {"alpha": "1.0", "beta": "2.0"}
    assert rows(second, 0)["alpha"].sha256 == rows(first, 0)["alpha"].sha256


def test_an_update_renews_what_is_named_and_nothing_else(locker: Locker) -> None:
    locker.repository.add("gamma")
    locker.repository.publish()
    first, _ = locker.lock(None, "alpha", "gamma")
    for name in ("alpha", "gamma"):
        locker.repository.add(name, "9.0")
    locker.repository.publish()
    _, changes = locker.lock(first, "alpha", "gamma", update=("gamma",))
    assert changes == ("~ gamma 1.0 -> 9.0",)


def test_a_bad_signature_stops_everything(locker: Locker) -> None:
    path = locker.repository.top / "InRelease"
    path.write_bytes(path.read_bytes().replace(b"Components: main", b"Components: evil"))
    with pytest.raises(IntegrityError) as caught:
        locker.lock(None, "alpha")
    assert "archive tests" in caught.value.message


def test_pip_without_an_interpreter_says_what_to_add(locker: Locker) -> None:
    with pytest.raises(ResolveError) as caught:
        locker.lock(None, pip=("rich",))
    assert caught.value.issues[0].hint == "add python3 to `apt`"


def states(locker: Locker) -> set[Path]:
    return set(locker.client.store.indexes.glob("apt-*"))


@pytest.fixture
def no_update(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, apt cannot read an archive anew."""
    return lambda: monkeypatch.setattr(aptsolver, "UPDATE", ("false",))


def test_apt_reads_an_archive_once_for_each_signed_index(
    locker: Locker, no_update: Callable[[], None]
) -> None:
    before = states(locker)
    first, _ = locker.lock(None, "alpha")
    (state,) = states(locker) - before
    no_update()
    second, changes = locker.lock(first, "alpha", "beta", refresh=True)
    assert second.groups[0] == first.groups[0]
    assert changes == ("~ the same packages, in other groups or for other requests",)
    locker.repository.add("gamma")
    locker.repository.publish()
    # Another InRelease: what was made of the old one is no answer.
    with pytest.raises(ResolveError, match="does not accept the archives"):
        locker.lock(first, "alpha", "gamma", refresh=True)
    assert states(locker) - before == {state}


def test_a_kept_state_that_was_damaged_is_made_again(locker: Locker) -> None:
    before = states(locker)
    first, _ = locker.lock(None, "alpha")
    (state,) = states(locker) - before
    cache = state / "cache/srcpkgcache.bin"
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    again, _ = locker.lock(None, "alpha")
    assert again == first
    assert cache.read_bytes()[len(whole) // 2 :].strip(b"\0")
