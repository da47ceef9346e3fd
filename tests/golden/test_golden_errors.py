"""Each case is a directory with a bad Sandboxfile and the exact report a user gets for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxfile.errors import SpecError
from sandboxfile.inputs.recipes import RecipeReader
from sandboxfile.spec.load import load
from sandboxfile.spec.source import render_issues

CASES = sorted(path for path in (Path(__file__).parent / "errors").iterdir() if path.is_dir())
NAMES = ("Sandboxfile", "Sandboxfile.toml", "pyproject.toml")


def report(case: Path) -> str:
    file = next(case / name for name in NAMES if (case / name).exists())
    with pytest.raises(SpecError) as caught:
        load(file.name, file.read_bytes(), read_recipe=RecipeReader((case / "shipped",), case))
    return render_issues(caught.value.issues) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_file_gets_exactly_this_report(case: Path, update_golden: bool) -> None:
    expected = case / "errors.txt"
    actual = report(case)
    if update_golden:
        expected.write_text(actual)
    assert actual == expected.read_text()


def test_ten_bad_things_at_once_get_ten_reports_with_their_lines() -> None:
    text = report(Path(__file__).parent / "errors" / "ten-at-once")
    blocks = text.split("\n\n")
    lines = [int(block.split("--> Sandboxfile:")[1].split(":")[0]) for block in blocks]
    assert len(blocks) == 10
    assert lines == sorted(set(lines))
