"""What a lock is asked for: canonical texts, and nothing that does not shape the answer."""

from __future__ import annotations

from spec_reading import read

from sandboxfile.spec.lock import Requests
from sandboxfile.spec.requests import requests_of


def requests(text: str) -> Requests:
    document = read(text)
    return requests_of(document, pip_requests=document.pip.requests, inputs={})


def test_requests_are_canonical() -> None:
    asked = requests("""
        base: {debian: 13, snapshot: 2026-11-01, components: [main, contrib], mirror: https://mirror.example/d}
        apt: ["libc6:amd64", jq=1.7]
        pip: {packages: ["Numpy >=2, <3", "my_tool[B,a]"], build: [My.Tool], venv: /opt/venv}
    """)
    assert asked.base == "debian:trixie snapshot=20261101T000000Z components=contrib,main"
    assert asked.apt == {"libc6:amd64", "jq=1.7"}
    assert asked.pip == {"numpy<3,>=2", "my-tool[a,b]"}
    assert asked.apt_options == {"recommends": "false"}
    assert asked.pip_options == {"build": '["my-tool"]', "venv": "/opt/venv"}


def test_order_comments_checks_and_steps_do_not_matter() -> None:
    one = requests("base: debian:13\napt: [a1, b1]\npip: [x, 'y>=1,<2']")
    two = requests("""
        # something else
        pip: ["y <2, >=1", x]
        apt: {packages: [b1, a1]}
        base: debian:trixie
        env: {A: b}
        run: [make]
        verify: [make check]
        start: serve
    """)
    assert one == two


def test_what_shapes_the_answer_does_matter() -> None:
    texts = [
        "base: debian:13",
        "base: debian:12",
        "base: {debian: 13, snapshot: 2026-11-01}",
        "base: {debian: 13, components: [main, contrib]}",
        "base: debian:13\napt: [jq]",
        "base: debian:13\napt: {recommends: true}",
        "base: debian:13\npip: [jq]",
        "base: debian:13\npip: {prereleases: true}",
        "base: debian:13\npip: {exclude-newer: 2026-11-01}",
        "base: debian:13\npip: {index-url: https://index.example/simple}",
        "base: debian:13\npip: {constraints: [c.txt]}",
        "base: scratch",
    ]
    asked = [requests(text) for text in texts]
    assert all(one != two for number, one in enumerate(asked) for two in asked[:number])
