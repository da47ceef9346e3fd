"""The examples load, their files are there, and each says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxfile.inputs.context import scan
from sandboxfile.inputs.recipes import RecipeReader, shipped_directories
from sandboxfile.spec.load import load
from sandboxfile.spec.model import Sandboxfile

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


def read(name: str) -> Sandboxfile:
    directory = EXAMPLES / name
    file = directory / "Sandboxfile"
    if not file.exists():
        file = directory / "pyproject.toml"
    reader = RecipeReader(shipped_directories(), directory)
    return load(file.name, file.read_bytes(), default_name=name, read_recipe=reader)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_a_readme_that_shows_how_to_build_it(name: str) -> None:
    assert f"sandboxfile -C examples/{name} build" in (EXAMPLES / name / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_loads_and_has_checks(name: str) -> None:
    assert read(name).verify != ()


@pytest.mark.parametrize("name", NAMES)
def test_every_file_an_example_names_is_there(name: str) -> None:
    document = read(name)
    assert len(scan(EXAMPLES / name, document.files).entries) == len(document.files)


def test_the_mandelbrot_example_is_the_environment_of_the_readme() -> None:
    document = read("mandelbrot")
    assert [str(request) for request in document.apt.packages] == [
        "python3",
        "python3-pip",
        "python3-venv",
        "python3-dev",
        "build-essential",
    ]
    assert [request.requirement for request in document.pip.requests] == [
        "requests",
        "httpx",
        "numpy",
        "pandas",
        "python-dotenv",
    ]
    assert document.start is not None
    assert (document.start.port, document.start.timeout) == (8000, 1800.0)


def test_a_parameter_of_the_recipes_example_reaches_the_recipe() -> None:
    directory = EXAMPLES / "recipes"
    document = load(
        "Sandboxfile",
        (directory / "Sandboxfile").read_bytes(),
        params={"team": "search"},
        read_recipe=RecipeReader(shipped_directories(), directory),
    )
    pages = [each.content for each in document.files if each.to == "/srv/page/index.html"]
    assert ["<h1>Status of search</h1>" in (page or "") for page in pages] == [True]
