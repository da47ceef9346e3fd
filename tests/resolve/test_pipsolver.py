"""uv, for real, on a small index that a local server has."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxfile.errors import FetchError, ResolveError, Source, Span
from sandboxfile.inputs.download import Downloader
from sandboxfile.inputs.interpreter import Interpreter
from sandboxfile.inputs.pipsolver import (
    PipProblem,
    UvError,
    default_index,
    explain,
    solve_pip,
    uv_environment,
)
from sandboxfile.inputs.sdists import build_requires, read_page, releases
from sandboxfile.inputs.settings import Settings
from sandboxfile.spec.lock import WheelRow
from sandboxfile.spec.model import Pip, PipRequest
from tests.resolve.server import Server, dead_url

TRIXIE = Interpreter("3.13.5", "amd64", (2, 41))


def wheel_bytes(name: str, version: str, requires: tuple[str, ...] = ()) -> bytes:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {r}\n" for r in requires)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{name}.py", f"version = '{version}'\n")
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


def sdist_bytes(name: str, version: str, pyproject: str | None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        files = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
        if pyproject is not None:
            files["pyproject.toml"] = pyproject
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


class Index:
    """A package index (PEP 503) in a web server's directory."""

    def __init__(self, web: Server) -> None:
        self.web = web
        self.url = f"{web.url}/simple"
        self.files: dict[str, list[tuple[str, bytes]]] = {}

    def add(self, name: str, filename: str, content: bytes) -> None:
        self.files.setdefault(name, []).append((filename, content))
        place = self.web.directory / "simple" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / filename).write_bytes(content)
        links = "".join(
            f'<a href="{f}#sha256={hashlib.sha256(c).hexdigest()}">{f}</a>\n' for f, c in self.files[name]
        )
        (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")

    def wheel(self, name: str, version: str, *requires: str) -> None:
        self.add(name, f"{name}-{version}-py3-none-any.whl", wheel_bytes(name, version, requires))


@pytest.fixture
def index(web: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Index:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    made = Index(web)
    made.wheel("app", "1.0", "lib>=1")
    made.wheel("app", "2.0", "lib>=2")
    made.wheel("lib", "1.0")
    made.wheel("lib", "2.0")
    made.wheel("lib", "3.0")
    made.wheel("other", "1.0", "lib<2")
    made.add("native", "native-1.0-cp312-cp312-win_amd64.whl", wheel_bytes("native", "1.0"))
    made.add("native", "native-1.0.tar.gz", sdist_bytes("native", "1.0", None))
    return made


def problem(index: Index, *requirements: str, source: str = "", **more: object) -> PipProblem:
    text = Source("Sandboxfile", source or "\n".join(requirements))
    requests = tuple(PipRequest(r, Span(text, n, 1, len(r))) for n, r in enumerate(requirements, 1))
    base = PipProblem(requests, Pip(index_url=index.url), TRIXIE, Path("/nowhere"))
    return replace(base, **more)  # type: ignore[arg-type]


def solved(settings: Settings, wanted: PipProblem) -> dict[str, str]:
    return {row.name: row.version for row in asyncio.run(solve_pip(wanted, settings))}


def row(name: str, version: str) -> WheelRow:
    return WheelRow(name, version, f"{name}-{version}-py3-none-any.whl", "0" * 64, 1)


def test_the_newest_versions_are_locked_with_digest_and_origin(index: Index, settings: Settings) -> None:
    rows = asyncio.run(solve_pip(problem(index, "app"), settings))
    assert [(r.name, r.version) for r in rows] == [("app", "2.0"), ("lib", "3.0")]
    assert rows[1].sha256 == hashlib.sha256(dict(index.files["lib"])[rows[1].filename]).hexdigest()
    assert rows[1].url == f"{index.url}/lib/lib-3.0-py3-none-any.whl"


def test_held_distributions_do_not_move(index: Index, settings: Settings) -> None:
    wanted = problem(index, "app", held=(row("lib", "2.0"),))
    assert solved(settings, wanted) == {"app": "2.0", "lib": "2.0"}


def test_held_distributions_without_a_solution_are_told_apart(index: Index, settings: Settings) -> None:
    with pytest.raises(UvError):
        solved(settings, problem(index, "app", "other", held=(row("app", "2.0"), row("lib", "2.0"))))


def test_preferred_distributions_move_only_when_they_must(index: Index, settings: Settings) -> None:
    assert solved(settings, problem(index, "app", preferred=(row("lib", "2.0"),))) == {
        "app": "2.0",
        "lib": "2.0",
    }
    wanted = problem(index, "app", "other", preferred=(row("lib", "2.0"), row("app", "2.0")))
    assert solved(settings, wanted) == {"app": "1.0", "lib": "1.0", "other": "1.0"}


def test_a_conflict_shows_uvs_explanation_and_both_places(index: Index, settings: Settings) -> None:
    wanted = problem(index, "app==2.0", "other")
    with pytest.raises(UvError) as caught:
        solved(settings, wanted)
    error = explain(wanted, caught.value.words)
    assert "`app==2.0` and `other`" in error.message
    assert "depends on lib" in " ".join(error.details), error.details
    (issue,) = error.issues
    assert issue.code == "pip-conflict"
    assert issue.span is not None
    assert issue.span.line == 1
    assert [span.line for _, span in issue.related] == [2]
    assert not any("--" in line for line in error.details)


@pytest.mark.parametrize(
    ("requirement", "code", "words"),
    [
        ("nothing-here", "unknown-distribution", "no distribution `nothing-here`"),
        ("native", "no-wheel", "no wheel of native"),
        ("lib==9", "pip-conflict", "`lib==9` has no solution"),
    ],
)
def test_each_kind_of_failure_has_its_own_words(
    index: Index, settings: Settings, requirement: str, code: str, words: str
) -> None:
    wanted = problem(index, "app", requirement)
    with pytest.raises(UvError) as caught:
        solved(settings, wanted)
    error = explain(wanted, caught.value.words)
    assert words in error.message
    (issue,) = error.issues
    assert (issue.code, issue.span and issue.span.line) == (code, 2)
    assert error.hint


def test_an_index_that_does_not_answer_is_a_fetch_error(
    index: Index, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "5")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    wanted = problem(index, "app", pip=Pip(index_url=f"{dead_url()}/simple"))
    with pytest.raises(FetchError) as caught:
        solved(settings, wanted)
    assert "does not answer" in caught.value.message


def test_the_files_own_index_wins_over_the_settings(index: Index, settings: Settings) -> None:
    elsewhere = replace(settings, pip_index_url=f"{dead_url()}/simple")
    assert solved(elsewhere, problem(index, "lib")) == {"lib": "3.0"}


def test_constraints_and_markers_of_the_target_count(
    index: Index, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "limits.txt").write_text("lib<3\n")
    pip = Pip(index_url=index.url, constraints=("limits.txt",))
    wanted = problem(
        index,
        "lib",
        'app; python_version < "3.13"',
        'other; sys_platform == "win32"',
        pip=pip,
        directory=tmp_path,
    )
    assert solved(settings, wanted) == {"lib": "2.0"}


def test_the_environment_of_uv_holds_no_configuration_of_its_user(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/somewhere")
    monkeypatch.setenv("UV_INDEX_PRIVATE_PASSWORD", "kept")
    env = uv_environment(settings)
    assert "UV_INDEX_URL" not in env
    assert "PIP_FIND_LINKS" not in env
    assert env["UV_INDEX_PRIVATE_PASSWORD"] == "kept"
    assert env["UV_PYTHON_DOWNLOADS"] == "never"


def test_uv_says_which_index_it_asks_by_default(settings: Settings) -> None:
    assert (default_index(settings) or "").startswith("https://")


def test_an_indexs_page_is_read_as_html_and_as_json() -> None:
    html = b'<a href="../f/a-1.tar.gz#sha256=aa">a</a><a data-yanked="" href="a-2.tar.gz#sha256=bb">b</a>'
    page = read_page(html, "https://index.example/simple/a/")
    assert [(c.filename, c.url, c.sha256) for c in page] == [
        ("a-1.tar.gz", "https://index.example/simple/f/a-1.tar.gz", "aa")
    ]
    json = (
        b'{"files": [{"filename": "a-1.tar.gz", "url": "a-1.tar.gz", "hashes": {"sha256": "aa"}, "size": 3}]}'
    )
    assert read_page(json, "https://index.example/simple/a/")[0].size == 3


def test_releases_come_newest_first_with_their_files(
    index: Index, settings: Settings, downloader: Downloader
) -> None:
    pip = Pip(index_url=index.url)
    found = asyncio.run(releases("native", pip, settings, Path("/nowhere"), downloader, None))
    assert [release.version for release in found] == ["1.0"]
    assert not found[0].has_wheel(TRIXIE)
    sdist = found[0].sdist()
    assert sdist is not None
    assert sdist.filename == "native-1.0.tar.gz"
    libs = asyncio.run(releases("lib", pip, settings, Path("/nowhere"), downloader, None))
    assert [release.version for release in libs] == ["3.0", "2.0", "1.0"]
    with pytest.raises(ResolveError):
        asyncio.run(releases("absent", pip, settings, Path("/nowhere"), downloader, None))


@pytest.mark.parametrize(
    ("pyproject", "requires"),
    [
        ('[build-system]\nrequires = ["flit_core >=3"]\n', ("flit_core >=3",)),
        ("[project]\nname = 'x'\n", ("setuptools>=40.8.0",)),
        (None, ("setuptools>=40.8.0",)),
    ],
)
def test_what_a_build_needs_is_read_without_running_it(
    tmp_path: Path, pyproject: str | None, requires: tuple[str, ...]
) -> None:
    path = tmp_path / "x-1.tar.gz"
    path.write_bytes(sdist_bytes("x", "1", pyproject))
    assert build_requires(path, "x") == requires


def test_a_damaged_source_archive_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x-1.tar.gz"
    path.write_bytes(b"not a tar")
    with pytest.raises(ResolveError, match="cannot be read"):
        build_requires(path, "x")
