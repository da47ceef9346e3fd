"""How recipes come together with the file that uses them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from spec_reading import issues, read

from sandboxfile.errors import SpecError
from sandboxfile.inputs.recipes import RecipeReader, shipped_directories
from sandboxfile.spec.load import load
from sandboxfile.spec.recipe import RecipeRef

TOOLS = """
    description: tools
    params:
      version: {default: "1"}
    apt: [jq, git]
    pip: [rich]
    env: {TOOLS: "{{ params.version }}"}
    files: [{from: tools.conf, to: /etc/tools.conf}]
    run: [tools --init]
    verify: [tools --version]
"""


def test_lists_append_below_the_file_and_maps_merge() -> None:
    document = read(
        """
        base: debian:13
        use: [tools]
        apt: [git, curl]
        pip: [rich, httpx]
        env: {MODE: fast}
        files: [{from: a, to: /a}]
        run: [make]
        """,
        tools=TOOLS,
    )
    assert [str(request) for request in document.apt.packages] == ["jq", "git", "curl"]
    assert [request.requirement for request in document.pip.requests] == ["rich", "httpx"]
    assert document.env == {"TOOLS": "1", "MODE": "fast"}
    assert [(file.source, file.root) for file in document.files] == [
        ("tools.conf", "/recipes/tools"),
        ("a", ""),
    ]
    assert [step.run for step in document.run] == ["tools --init", "make"]
    assert [(recipe.name, recipe.digest) for recipe in document.recipes] == [("tools", "sha256:0")]
    span = document.run[0].span
    assert span is not None
    assert span.source.name == "tools/recipe.yaml"


def test_a_recipe_gets_its_own_parameters_only() -> None:
    document = read(
        """
        base: debian:13
        params: {v: {default: "2"}}
        use: [{recipe: tools, params: {version: "{{ params.v }}"}}]
        """,
        tools=TOOLS,
    )
    assert document.env == {"TOOLS": "2"}
    assert document.recipes[0].params == {"version": "2"}
    assert document.params == {"v": "2"}


def test_a_recipe_used_twice_the_same_way_counts_once() -> None:
    inner = "description: inner\nrun: [once]"
    left, right = "description: left\nuse: [inner]", "description: right\nuse: [inner]"
    document = read("base: debian:13\nuse: [left, right]", inner=inner, left=left, right=right)
    assert [step.run for step in document.run] == ["once"]
    assert [recipe.name for recipe in document.recipes] == ["inner", "left", "right"]


def test_a_request_that_says_more_stands_for_both() -> None:
    document = read("base: debian:13\nuse: [tools]\napt: [jq=1.7]", tools=TOOLS)
    assert [str(request) for request in document.apt.packages] == ["jq=1.7", "git"]


def test_equal_values_are_no_conflict() -> None:
    assert read("base: debian:13\nuse: [tools]\nenv: {TOOLS: 1}", tools=TOOLS).env == {"TOOLS": "1"}


def test_conflicts_name_both_places() -> None:
    (issue,) = issues("base: debian:13\nuse: [tools]\nenv: {TOOLS: 2}", tools=TOOLS)
    assert issue.code == "conflict"
    assert str(issue.span) == "Sandboxfile:3:14"
    assert [str(span) for _, span in issue.related] == ["tools/recipe.yaml:7:14"]


def test_a_cycle_shows_its_path_and_every_line() -> None:
    one, two = "description: 1\nuse: [two]", "description: 2\nuse: [one]"
    (issue,) = issues("base: debian:13\nuse: [one]", one=one, two=two)
    assert "one -> two -> one" in issue.message
    assert [str(span) for _, span in issue.related] == ["Sandboxfile:2:7", "one/recipe.yaml:2:7"]


def test_the_number_of_recipes_is_bounded() -> None:
    texts = {f"r{number}": "description: x" for number in range(200)}
    found = issues(f"base: debian:13\nuse: [{', '.join(texts)}]", **texts)
    assert [issue.code for issue in found] == ["too-large"]


def test_recipes_that_double_at_each_level_are_read_once_each() -> None:
    texts = {f"r{n}": f"description: x\nuse: [r{n + 1}, r{n + 1}]" for n in range(40)} | {
        "r40": "description: x"
    }
    assert len(read("base: debian:13\nuse: [r0]", **texts).recipes) == 41


def write(directory: Path, text: str = "description: x\n") -> Path:
    directory.mkdir(parents=True)
    (directory / "recipe.yaml").write_text(text)
    return directory


def test_shipped_and_local_recipes_are_found(tmp_path: Path) -> None:
    write(tmp_path / "shipped" / "tools")
    write(tmp_path / "project" / "mine" / "ours", "description: x\nuse: [../theirs, tools]\n")
    write(tmp_path / "project" / "mine" / "theirs")
    reader = RecipeReader((tmp_path / "shipped",), tmp_path / "project")
    document = load("Sandboxfile", b"base: debian:13\nuse: [./mine/ours]", read_recipe=reader)
    assert [recipe.name for recipe in document.recipes] == ["./mine/theirs", "tools", "./mine/ours"]
    assert reader.names() == ("tools",)


def test_the_digest_follows_content_and_executable_bits_not_times(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r")
    (recipe / "tool").write_text("x")
    reader = RecipeReader((), tmp_path)

    def digest() -> str:
        return reader(RecipeRef("./r")).digest

    first = digest()
    os.utime(recipe / "tool", (0, 0))
    assert digest() == first
    (recipe / "tool").chmod(0o755)
    executable = digest()
    assert executable != first
    (recipe / "tool").write_text("y")
    assert digest() not in (first, executable)


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside"])
def test_a_link_out_of_a_recipe_is_refused(tmp_path: Path, target: str) -> None:
    recipe = write(tmp_path / "r")
    (tmp_path / "outside").write_text("secret")
    (recipe / "link").symlink_to(target)
    with pytest.raises(SpecError, match="leads out of it"):
        RecipeReader((), tmp_path)(RecipeRef("./r"))


def test_a_recipe_text_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "secret").write_text("description: secret\n")
    (tmp_path / "r" / "recipe.yaml").symlink_to(tmp_path / "secret")
    with pytest.raises(SpecError, match="leads out of it"):
        RecipeReader((), tmp_path)(RecipeRef("./r"))


def test_a_recipe_directory_that_is_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "r").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpecError, match="leads out of its directory"):
        RecipeReader((), tmp_path / "project")(RecipeRef("./r"))


def test_links_inside_a_recipe_are_fine(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r")
    (recipe / "link").symlink_to("recipe.yaml")
    assert RecipeReader((), tmp_path)(RecipeRef("./r")).name == "./r"


@pytest.mark.parametrize(
    "recipe", [path for place in shipped_directories() for path in place.iterdir()], ids=str
)
def test_every_shipped_recipe_loads(recipe: Path) -> None:
    reader = RecipeReader(shipped_directories(), recipe)
    data = f"base: debian:13\nuse: [{recipe.name}]".encode()
    document = load("Sandboxfile", data, read_recipe=reader)
    assert document.verify
    assert all((Path(file.root) / (file.source or "")).exists() for file in document.files)
    assert (recipe / "README.md").exists()
