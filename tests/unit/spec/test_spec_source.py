"""How an issue looks: the sentence, the line, the carets under the right columns."""

from __future__ import annotations

import textwrap

import pytest

from sandboxfile.errors import Issue, Source, Span
from sandboxfile.spec.source import render_issue, render_issues


def expected(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def test_an_issue_shows_its_line_and_a_hint() -> None:
    source = Source("Sandboxfile", "base: debian:13\nstesp: []\n")
    issue = Issue("unknown-key", "unknown key `stesp`", Span(source, 2, 1, 5), hint="did you mean `steps`?")
    assert render_issue(issue) == expected("""
        error: unknown key `stesp`
          --> Sandboxfile:2:1
           |
         2 | stesp: []
           | ^^^^^
        hint: did you mean `steps`?
    """)


def test_related_places_are_notes_and_wide_numbers_widen_the_frame() -> None:
    source = Source("Sandboxfile", "\n" * 99 + "a: 1\na: 2\n")
    issue = Issue("x", "twice", Span(source, 101, 1), related=(("first here", Span(source, 100, 1)),))
    assert render_issue(issue) == expected("""
        error: twice
            --> Sandboxfile:101:1
             |
         101 | a: 2
             | ^
        note: first here
            --> Sandboxfile:100:1
             |
         100 | a: 1
             | ^
    """)


@pytest.mark.parametrize(
    ("line", "column", "length", "shown", "carets"),
    [
        ("\tx: y", 2, 1, "    x: y", "    ^"),
        ("漢字: y", 5, 1, "漢字: y", "      ^"),
        ("漢字", 1, 2, "漢字", "^^^^"),
        ("e\u0301: y", 5, 1, "e\u0301: y", "   ^"),
        ("a\x1b[31m: y", 9, 1, "a\\u{1b}[31m: y", " " * 13 + "^"),
        ("a\u202eb", 3, 1, "a\\u{202e}b", " " * 9 + "^"),
        ("short", 9, 3, "short", "     ^"),
    ],
)
def test_carets_stand_under_the_characters(
    line: str, column: int, length: int, shown: str, carets: str
) -> None:
    rendered = render_issue(Issue("x", "m", Span(Source("S", line), 1, column, length))).splitlines()
    assert rendered[3:] == [f" 1 | {shown}", f"   | {carets}"]


def test_a_long_line_is_cut_around_the_place() -> None:
    rendered = render_issue(Issue("x", "m", Span(Source("S", "a" * 500 + "BAD" + "c" * 500), 1, 501, 3)))
    shown, carets = rendered.splitlines()[3:]
    assert len(shown) < 160
    assert shown[carets.index("^") : carets.rindex("^") + 1] == "BAD"


def test_an_issue_without_a_place_is_a_sentence() -> None:
    assert render_issue(Issue("x", "no file", hint="write one")) == "error: no file\nhint: write one"


def test_issues_are_separated_by_a_blank_line() -> None:
    assert render_issues([Issue("x", "one"), Issue("x", "two")]) == "error: one\n\nerror: two"


def test_colour_adds_only_escapes() -> None:
    import re

    issue = Issue(
        "x", "m", Span(Source("S", "abc"), 1, 2), hint="h", related=(("r", Span(Source("S", "a"), 1, 1)),)
    )
    assert re.sub(r"\x1b\[[0-9;]*m", "", render_issue(issue, colour=True)) == render_issue(issue)
    assert "\x1b[" in render_issue(issue, colour=True)


def test_credentials_in_an_address_are_masked_everywhere() -> None:
    line = "index: https://me:hunter2@index.example/simple"
    issue = Issue("x", "bad `ftp://me:hunter2@index.example`", Span(Source("S", line), 1, 8, 39))
    rendered = render_issue(issue)
    assert "hunter2" not in rendered
    assert " 1 | index: https://**********@index.example/simple" in rendered


def test_a_sentence_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in render_issue(Issue("x", "a \x1b]0;title\x07 b"))
