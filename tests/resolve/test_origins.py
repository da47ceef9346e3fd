"""Where a locked package comes from: URLs, as values."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxfile.build.wanted import WantedFiles
from sandboxfile.core.digest import Digest
from sandboxfile.inputs import environment, origins
from sandboxfile.inputs.caches import cache_url, near_urls
from sandboxfile.inputs.environment import SuiteSource, parse_snapshot_templates
from sandboxfile.inputs.origins import Origins, origins_of, past_templates
from sandboxfile.inputs.sdists import read_page
from sandboxfile.inputs.settings import Settings
from sandboxfile.inputs.vendored import dump_sums, find_vendored, open_vendored, parse_sums
from sandboxfile.spec.lock import Archive, DebRow, Group, LockedBase, Lockfile, PipTransition, WheelRow
from sandboxfile.spec.model import DebianRequest, Pip, Sandboxfile

ROW = DebRow("jq", "1.7", "amd64", "a" * 64, 5, "pool/main/j/jq/jq_1.7_amd64.deb", "debian")
WHEN = 1_789_200_000
DAYS = 86400


def archive(date: int, suite: str = "trixie", name: str = "debian") -> Archive:
    return Archive(name, suite, ("main",), Digest(f"sha256:{date:064x}"), date)


def test_a_package_comes_from_the_mirrors_and_then_from_each_archive_of_old_versions() -> None:
    settings = Settings(
        home=Path("/s"),
        apt_mirrors={"debian": ("https://a.example/debian/", "https://b.example/debian")},
        snapshot_hosts=("https://one.example/", "https://two.example"),
    )
    spec = Sandboxfile("x", DebianRequest("trixie"))
    defaults = (SuiteSource("debian", "https://default.example/debian", "trixie", ("main",)),)
    made = origins_of(spec, [archive(WHEN), archive(WHEN - 9 * DAYS)], defaults=defaults, settings=settings)
    wanted = made.deb(ROW, [archive(WHEN)])
    assert wanted.urls == (f"https://a.example/debian/{ROW.path}", f"https://b.example/debian/{ROW.path}")
    assert wanted.older == tuple(
        f"https://{host}.example/archive/debian/{time}/{ROW.path}"
        for time in ("20260912T080000Z", "20260912T200000Z", "20260903T080000Z")
        for host in ("one", "two")
    )


def test_a_packages_own_suites_dates_come_first_and_others_are_few() -> None:
    made = Origins({}, {"debian": (f"https://s.example/archive/debian/{origins.TIME}",)},
                   {"debian": tuple(WHEN - n * DAYS for n in range(30))})  # fmt: skip
    security = archive(WHEN, "trixie-security", "debian-security")
    older = made.deb(ROW, [archive(WHEN - 20 * DAYS), archive(WHEN - 21 * DAYS), security]).older
    assert [url.split("/")[5] for url in older[:2]] == ["20260823T080000Z", "20260822T080000Z"]
    assert len(older) == 4 + origins.DATES


def test_without_a_setting_the_archives_of_old_versions_are_those_that_apt_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dump = (
        'Acquire::Snapshots::URI "";\n'
        'Acquire::Snapshots::URI::Label::Debian "https://s.example/archive/debian/@SNAPSHOTID@/";\n'
        'Acquire::Snapshots::URI::Label::Other "https://s.example/archive/other/@SNAPSHOTID@/";\n'
        'Acquire::Snapshots::URI::Label::No "no";\n'
    )
    known = parse_snapshot_templates(dump)
    assert len(known) == 2
    monkeypatch.setattr(origins, "snapshot_templates", lambda: known)
    assert past_templates("debian", Settings(Path("/s"))) == (
        "https://s.example/archive/debian/@SNAPSHOTID@",
    )
    assert past_templates("debian-security", Settings(Path("/s"))) == ()
    assert isinstance(environment.snapshot_templates(), tuple)


def test_a_cache_has_the_layout_of_the_stores_blobs(tmp_path: Path) -> None:
    sha256 = "ab" + "c" * 62
    assert cache_url("https://c.example/p/", sha256) == f"https://c.example/p/sha256/ab/{'c' * 62}"
    assert cache_url("/srv/p", sha256) == f"file:///srv/p/sha256/ab/{'c' * 62}"
    (tmp_path / "v").mkdir()
    (tmp_path / "v/SHA256SUMS").write_text(f"{sha256}  pip/a.whl\n")
    settings = Settings(tmp_path, caches=("/srv/p",), vendored=tmp_path / "v")
    assert list(near_urls(settings, sha256)) == [
        (tmp_path / "v/pip/a.whl").as_uri(), f"file:///srv/p/sha256/ab/{'c' * 62}"
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["x", f"{'a' * 64} one", f"{'a' * 64}  /etc/x", f"{'a' * 64}  a/../../x"])
def test_a_list_of_vendored_files_leads_nowhere_else(line: str) -> None:
    with pytest.raises(ValueError, match="SHA256"):
        parse_sums(line)
    good = f"{'a' * 64}  a b/c\n"
    assert dump_sums(parse_sums(good)).endswith(good)


def test_vendored_packages_are_found_beside_the_lock_and_a_directory_wins(tmp_path: Path) -> None:
    assert find_vendored(tmp_path) is None
    (tmp_path / "sandboxfile.vendor").mkdir()
    assert find_vendored(tmp_path) is None
    (tmp_path / "sandboxfile.vendor.tar").write_bytes(b"")
    assert find_vendored(tmp_path) == tmp_path / "sandboxfile.vendor.tar"
    (tmp_path / "sandboxfile.vendor/SHA256SUMS").write_text("")
    assert find_vendored(tmp_path) == tmp_path / "sandboxfile.vendor"
    assert open_vendored(tmp_path / "sandboxfile.vendor").url("a" * 64) is None


def locked(*wheels: WheelRow) -> Lockfile:
    base = LockedBase("debian:trixie", "debian", "amd64", 1, suite="trixie", archives=(archive(WHEN),))
    return Lockfile(base, (Group(Digest(""), None, PipTransition((), "3.13.5", wheels)),))


def files(lock: Lockfile, pip: Pip, settings: Settings) -> WantedFiles:
    spec = Sandboxfile("x", DebianRequest("trixie"), pip=pip)
    return WantedFiles(spec, lock, Path("/p"), settings, Path("/c"), offline=True)


def test_a_wheels_url_gets_the_credentials_of_its_own_index_and_of_no_other() -> None:
    lock = locked(
        WheelRow("a", "1", "a-1-py3-none-any.whl", "1" * 64, 1, url="https://index.example/f/a-1.whl"),
        WheelRow("b", "1", "b-1-py3-none-any.whl", "2" * 64, 1, url="https://files.example/b-1.whl"),
        WheelRow("c", "1", "c-1-py3-none-any.whl", "3" * 64, 1, url="http://index.example/c-1.whl"),
    )
    settings = Settings(Path("/s"), pip_index_url="https://me:secret@index.example/simple")
    urls = [item.urls for _, item in files(lock, Pip(), settings).wheels()]
    assert urls == [
        ("https://me:secret@index.example/f/a-1.whl",),
        ("https://files.example/b-1.whl",),
        ("http://index.example/c-1.whl",),
    ]


def test_a_wheel_that_was_built_here_has_no_origin_but_its_source_has() -> None:
    url = "https://index.example/f/a-1.tar.gz"
    row = WheelRow("a", "1", "a-1-py3-none-any.whl", "1" * 64, 1, url=url, built=True, sdist_sha256="2" * 64)
    wanted = files(locked(row), Pip(), Settings(Path("/s")))
    assert [item.urls for _, item in wanted.wheels()] == [()]
    ((_, source),) = wanted.sources()
    assert (source.sha256, source.name, source.urls) == ("2" * 64, "a-1.tar.gz", (url,))


def test_a_yanked_file_is_seen_by_who_looks_for_a_locked_one() -> None:
    page = b'<a href="a-1.tar.gz#sha256=aa">a</a><a data-yanked="" href="a-2.tar.gz#sha256=bb">b</a>'
    url = "https://index.example/simple/a/"
    assert [c.sha256 for c in read_page(page, url)] == ["aa"]
    assert [c.sha256 for c in read_page(page, url, yanked=True)] == ["aa", "bb"]
