"""Requirements files as requests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sandboxfile.errors import Issue, Source, Span, SpecError
from sandboxfile.inputs.requirements import expand, files_read
from sandboxfile.spec.model import Pip, PipRequest, RequirementsFile

SPAN = Span(Source("Sandboxfile", "pip: [-r requirements.txt]\n"), 1, 7, 19)


def read(directory: Path, text: str, **files: str) -> tuple[list[str], list[PipRequest], dict[str, str]]:
    (directory / "requirements.txt").write_text(text)
    for name, content in files.items():
        path = directory / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    requests, inputs = expand(directory, Pip(files=(RequirementsFile("requirements.txt", SPAN),)))
    return [request.requirement for request in requests], list(requests), dict(inputs)


def problems(directory: Path, text: str, **files: str) -> tuple[Issue, ...]:
    with pytest.raises(SpecError) as caught:
        read(directory, text, **files)
    return caught.value.issues


def test_without_files_the_requests_are_the_sandboxfile_s(tmp_path: Path) -> None:
    requests = (PipRequest("rich"),)
    assert expand(tmp_path, Pip(requests=requests)) == (requests, {})


def test_requirements_are_read_in_order_after_the_sandboxfile_s_own_each_once(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy\nrich\n")
    pip = Pip(requests=(PipRequest("rich"),), files=(RequirementsFile("r.txt"), RequirementsFile("./r.txt")))
    requests, _ = expand(tmp_path, pip)
    assert [r.requirement for r in requests] == ["rich", "numpy"]


def test_comments_blank_lines_and_continuations(tmp_path: Path) -> None:
    text = (
        "\ufeff# a comment\n\nRich  # why\n  flask\\\n  >= 3,\\\n<4 # two lines\n\t\nname#egg-free\n".replace(
            "name#egg-free", "x"
        )
    )
    names, requests, _ = read(tmp_path, text)
    assert names == ["rich", "flask<4,>=3", "x"]
    assert [str(r.span) for r in requests] == [
        "requirements.txt:3:1",
        "requirements.txt:4:3",
        "requirements.txt:8:1",
    ]
    assert [r.span.length for r in requests if r.span] == [4, 5, 1]


def test_markers_extras_and_urls(tmp_path: Path) -> None:
    text = (
        'tomli; python_version < "3.11"\nUvicorn[Standard,extra] >=0.30\n'
        "pkg @ https://index.example/pkg-1.0-py3-none-any.whl\n"
    )
    names, _, _ = read(tmp_path, text)
    assert names == [
        'tomli; python_version < "3.11"',
        "uvicorn[extra,standard]>=0.30",
        "pkg @ https://index.example/pkg-1.0-py3-none-any.whl",
    ]


def test_files_include_others_relative_to_themselves_and_only_once(tmp_path: Path) -> None:
    names, requests, inputs = read(
        tmp_path,
        "-r sub/more.txt\nrich\n--requirement=sub/more.txt\n-rsub/more.txt\n",
        sub__more_txt="flask\n-r other.txt\n",
        sub__other_txt="numpy\n-r ../requirements.txt\n",
    )
    assert names == ["flask", "numpy", "rich"]
    assert [str(r.span) for r in requests] == [
        "sub/more.txt:1:1",
        "sub/other.txt:1:1",
        "requirements.txt:2:1",
    ]
    assert inputs == {}


def test_the_files_that_are_read_are_known(tmp_path: Path) -> None:
    assert files_read(tmp_path, Pip(requests=(PipRequest("rich"),))) == ()
    (tmp_path / "r.txt").write_text("-r sub/more.txt\n-c c.txt\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/more.txt").write_text("rich\n")
    (tmp_path / "c.txt").write_text("rich<14\n")
    pip = Pip(files=(RequirementsFile("r.txt"),), constraints=("./c.txt",))
    assert files_read(tmp_path, pip) == ("c.txt", "r.txt", "sub/more.txt")


def test_constraints_are_inputs_and_no_requests(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("six<2\n")
    (tmp_path / "requirements.txt").write_text("rich\n-c sub/c.txt\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/c.txt").write_text("flask<4\n--constraint nested.txt\n")
    (tmp_path / "sub/nested.txt").write_text("numpy<3\n")
    requests, inputs = expand(
        tmp_path, Pip(files=(RequirementsFile("requirements.txt"),), constraints=("own.txt",), span=SPAN)
    )
    assert [r.requirement for r in requests] == ["rich"]
    assert list(inputs) == ["own.txt", "sub/c.txt", "sub/nested.txt"]
    assert inputs["own.txt"] == "sha256:" + hashlib.sha256(b"six<2\n").hexdigest()


def test_a_file_can_hold_requirements_and_be_constraints(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("rich\n")
    requests, inputs = expand(tmp_path, Pip(files=(RequirementsFile("r.txt"),), constraints=("r.txt",)))
    assert [r.requirement for r in requests] == ["rich"]
    assert list(inputs) == ["r.txt"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("--index-url https://me:secret@index.example", "option-not-supported", "index-url"),
        ("-i https://index.example", "option-not-supported", "index-url"),
        ("--extra-index-url=https://index.example", "option-not-supported", "extra-index-urls"),
        ("-f wheels", "option-not-supported", "find-links"),
        ("--pre", "option-not-supported", "prereleases"),
        ("--no-binary :all:", "option-not-supported", "build"),
        ("--require-hashes", "option-not-supported", "sandboxfile.lock"),
        ("--surprise", "option-not-supported", "--surprise"),
        ("-e .", "editable-requirement", "files"),
        ("rich --hash=sha256:00", "hashes-not-supported", "sandboxfile.lock"),
        ("rich \\\n    --hash=sha256:00", "hashes-not-supported", "sandboxfile.lock"),
        ("rich --config-settings x=y", "option-not-supported", "single requirement"),
        ("rich==${VERSION}", "bad-requirement", "environment variables"),
        ("rich = 3", "bad-value", "rich"),
        ("./local", "bad-value", "local"),
        ("-r", "bad-requirement", "-r"),
        ("-r missing.txt", "missing-file", "missing.txt"),
        ("-r ../outside.txt", "path-outside-context", "outside"),
        ("-r /etc/passwd", "path-outside-context", "outside"),
        ("-r https://index.example/r.txt", "bad-path", "https"),
    ],
)
def test_what_cannot_be_taken_is_refused_at_its_line(tmp_path: Path, line: str, code: str, says: str) -> None:
    (issue,) = problems(tmp_path, f"rich\n\n{line}\nflask\n")
    assert issue.code == code
    assert issue.span is not None
    assert (issue.span.source.name, issue.span.line) == ("requirements.txt", 3)
    assert says in f"{issue.message} {issue.hint}"
    assert "secret" not in f"{issue.message} {issue.hint}"


def test_every_problem_of_every_file_is_reported(tmp_path: Path) -> None:
    issues = problems(tmp_path, "-e .\n-r b.txt\n--pre\n", b_txt="a b c\n")
    assert [f"{issue.span}" for issue in issues] == [
        "requirements.txt:1:1",
        "b.txt:1:1",
        "requirements.txt:3:1",
    ]


def test_a_missing_file_is_shown_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("")
    with pytest.raises(SpecError) as caught:
        expand(tmp_path, Pip(files=(RequirementsFile("requirement.txt", SPAN),)))
    assert caught.value.span == SPAN
    assert caught.value.hint == "did you mean requirements.txt?"


def test_files_that_lead_out_or_are_no_text_are_refused(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "outside.txt").write_text("rich\n")
    (project / "link.txt").symlink_to("../outside.txt")
    (project / "binary.txt").write_bytes(b"\xff\xfe")
    files = tuple(RequirementsFile(name, SPAN) for name in ("link.txt", "binary.txt", "."))
    with pytest.raises(SpecError) as caught:
        expand(project, Pip(files=files))
    assert [issue.code for issue in caught.value.issues] == [
        "path-outside-context",
        "not-utf8",
        "path-outside-context",
    ]


def test_constraints_take_no_extras(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("rich[jupyter]<14\n")
    with pytest.raises(SpecError, match="extras"):
        expand(tmp_path, Pip(constraints=("c.txt",), span=SPAN))
