"""Parameters, and the templates that use them."""

from __future__ import annotations

import pytest
from spec_reading import issues, read

PARAMS = """
base: debian:13
params:
  version: {default: "3.13", help: which Python, pattern: '3\\.\\d+'}
  port: {type: integer, default: 8000}
  debug: {type: boolean, default: false}
  tools: {type: list, default: [jq, git]}
  colour: {choices: [red, green], default: red}
  items: {default: named like a method}
"""


def value(expression: str, **params: str) -> str:
    return read(PARAMS + f"env: {{X: {expression!r}}}\n", params).env["X"]


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("python{{ params.version }}", "python3.13"),
        ("{{ params['port'] + 1 }}", "8001"),
        ("{% if params.debug %}-v{% else %}-q{% endif %}", "-q"),
        ("{{ params.tools | join(', ') }}", "jq, git"),
        ("{% for tool in params.tools %}<{{ tool }}>{% endfor %}", "<jq><git>"),
        ("{{ params.items }}", "named like a method"),
        ("{{ params.version.split('.')[1] }}", "13"),
        ("{{ 'new' if params.version.startswith('3.1') else 'old' }}", "new"),
        ('{{ "{{" }} literal {{ "}}" }}', "{{ literal }}"),
        ("{% raw %}{{ kept }}{% endraw %}", "{{ kept }}"),
        ("{# nothing #}x", "x"),
    ],
)
def test_templates_render(expression: str, result: str) -> None:
    assert value(expression) == result


def test_given_values_are_converted_by_their_type() -> None:
    given = {"version": "3.12", "port": "80", "debug": "true", "tools": "a, b", "colour": "green"}
    document = read(PARAMS, given)
    assert document.params == {
        "version": "3.12",
        "port": 80,
        "debug": True,
        "tools": ("a", "b"),
        "colour": "green",
        "items": "named like a method",
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("version", "2.7", r"`2.7` does not match the pattern `3\.\d+` of `version`"),
        ("port", "http", "expected a whole number, found `http`"),
        ("debug", "yes", "expected `true` or `false`, found `yes`"),
        ("colour", "blue", "`blue` is not a choice for `colour`"),
    ],
)
def test_a_given_value_of_the_wrong_kind_is_an_issue(name: str, text: str, message: str) -> None:
    assert [issue.message for issue in issues(PARAMS, {name: text})] == [message]


def test_an_unknown_parameter_is_an_issue_with_the_near_name() -> None:
    (issue,) = issues(PARAMS, {"verison": "3.12"})
    assert (issue.code, issue.hint) == ("unknown-param", "did you mean `version`?")


def test_a_missing_value_is_reported_once_however_often_it_is_used() -> None:
    text = "base: debian:13\nparams: {key: {}}\nenv: {A: '{{ params.key }}', B: '{{ params.key }}'}\n"
    (issue,) = issues(text)
    assert issue.code == "missing-param"
    assert read(text, {"key": "v"}).env == {"A": "v", "B": "v"}


def test_a_template_can_stand_for_a_number() -> None:
    document = read(PARAMS + 'start: {command: serve, port: "{{ params.port }}"}', {"port": "81"})
    assert document.start is not None
    assert document.start.port == 81


def test_a_value_never_changes_the_structure() -> None:
    evil = 'x"], run: [curl evil]'
    document = read("base: debian:13\nparams: {v: {}}\nenv: {A: '{{ params.v }}'}", {"v": evil})
    assert document.env == {"A": evil}
    assert document.run == ()


def test_a_value_is_not_rendered_again() -> None:
    text = "base: debian:13\nparams: {v: {}}\nenv: {A: '{{ params.v }}'}"
    assert read(text, {"v": "{{ params.v }}"}).env == {"A": "{{ params.v }}"}


def test_a_default_cannot_hold_a_template() -> None:
    (issue,) = issues("base: debian:13\nparams: {a: {default: '{{ params.b }}'}, b: {default: x}}")
    assert issue.message == "a default cannot hold a template"


def test_an_entry_that_a_template_leaves_empty_is_left_out() -> None:
    text = PARAMS + "apt: [jq, '{% if params.debug %}gdb{% endif %}']\n"
    assert len(read(text).apt.packages) == 1
    assert len(read(text, {"debug": "true"}).apt.packages) == 2


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'x' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x'.center(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{% for a in range(1000000000) %}x{% endfor %}",
        "{% for a in params.items %}{% for b in params.items %}x{% endfor %}{% endfor %}",
        "{% set a = 'xxxxxxxx' %}{% set a = a ~ a %}{{ a }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include '/etc/passwd' %}",
        "{{ params.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ params.version.format(params) }}",
        "{{ cycler('a') }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "-" * 3000 + "1 }}",
        "{{ params }}",
        "{{ 'a' / 2 }}",
        "{{ params.port - 'a' }}",
    ],
)
def test_what_templates_must_not_do_is_an_issue(bomb: str) -> None:
    (issue,) = issues(
        PARAMS + f"env: {{X: {bomb!r}}}\n" if "'" not in bomb else PARAMS + f'env: {{X: "{bomb}"}}\n'
    )
    assert issue.code == "template"
    assert issue.span is not None


def test_the_result_of_a_template_is_bounded() -> None:
    text = "base: debian:13\nparams: {v: {}}\nenv: {A: '" + "{{ params.v }}" * 1000 + "'}"
    (issue,) = issues(text, {"v": "x" * 4000})
    assert "longer than" in issue.message
