"""Each case is a directory with a lock that cannot be used and the exact report a user gets for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxfile.errors import LockFormatError
from sandboxfile.spec.lockfile import load
from sandboxfile.spec.source import render_issues

CASES = sorted(path for path in (Path(__file__).parent / "locks").iterdir() if path.is_dir())


def report(case: Path) -> str:
    with pytest.raises(LockFormatError) as caught:
        load((case / "sandboxfile.lock").read_text())
    return render_issues(caught.value.issues) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_lock_gets_exactly_this_report(case: Path, update_golden: bool) -> None:
    expected = case / "errors.txt"
    actual = report(case)
    if update_golden:
        expected.write_text(actual)
    assert actual == expected.read_text()


def test_every_report_says_where_and_what_to_do() -> None:
    for case in CASES:
        text = report(case)
        assert "--> sandboxfile.lock:" in text
        assert "hint: " in text
