"""What the tests of `spec` share: loading a text, and the issues it has."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

from sandboxfile.errors import Issue, SpecError
from sandboxfile.spec.load import load
from sandboxfile.spec.model import Sandboxfile
from sandboxfile.spec.recipe import RecipeRef, RecipeText

SEED = r"""
    name: fun-with-python
    base: debian:13
    apt: [python3, python3-pip, python3-venv, python3-dev, build-essential]
    pip: [requests, httpx, numpy, pandas, python-dotenv]
    files:
      - {from: app.py, to: /app/app.py}
    verify:
      - python3 --version
      - pip3 --version
      - {run: python3 -c "import numpy; print(numpy.__version__)", stdout: '^\d+\.', timeout: 30s}
    start: {command: python3 /app/app.py, port: 8000, timeout: 30m}
"""


def read(text: str, params: Mapping[str, str] | None = None, **recipes: str) -> Sandboxfile:
    """The document of a YAML text; recipes by name, as texts too."""
    data = textwrap.dedent(text).encode()
    return load("Sandboxfile", data, params=params, default_name="here", read_recipe=_reader(recipes))


def read_toml(text: str, file: str = "Sandboxfile.toml") -> Sandboxfile:
    return load(file, textwrap.dedent(text).encode(), default_name="here")


def issues(text: str, params: Mapping[str, str] | None = None, **recipes: str) -> tuple[Issue, ...]:
    """The issues of a YAML text, none when it loads."""
    try:
        read(text, params, **recipes)
    except SpecError as error:
        return error.issues
    return ()


def _reader(recipes: Mapping[str, str]) -> Callable[[RecipeRef], RecipeText]:
    def read_recipe(ref: RecipeRef) -> RecipeText:
        text = textwrap.dedent(recipes[ref.name.replace("-", "_")])
        return RecipeText(
            ref.name, f"/recipes/{ref.name}", f"{ref.name}/recipe.yaml", text.encode(), "sha256:0"
        )

    return read_recipe
