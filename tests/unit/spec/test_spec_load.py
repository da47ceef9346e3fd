"""What a Sandboxfile says is what the document holds."""

from __future__ import annotations

import sys

import pytest
from spec_reading import SEED, issues, read, read_toml

from sandboxfile.errors import SpecError
from sandboxfile.spec.decode import format_of
from sandboxfile.spec.load import load
from sandboxfile.spec.model import (
    AptRequest,
    AptSource,
    Check,
    DebianRequest,
    FileRequest,
    HttpCheck,
    Network,
    PipRequest,
    RequirementsFile,
    Resources,
    RootfsRequest,
    RunStep,
    Sandboxfile,
    ScratchRequest,
    Secret,
    SnapshotRequest,
    Start,
)

SEED_TOML = r"""
    name = "fun-with-python"
    base = "debian:13"
    apt = ["python3", "python3-pip", "python3-venv", "python3-dev", "build-essential"]
    pip = ["requests", "httpx", "numpy", "pandas", "python-dotenv"]
    verify = [
      "python3 --version",
      "pip3 --version",
      { run = 'python3 -c "import numpy; print(numpy.__version__)"', stdout = '^\d+\.', timeout = "30s" },
    ]

    [[files]]
    from = "app.py"
    to = "/app/app.py"

    [start]
    command = "python3 /app/app.py"
    port = 8000
    timeout = "30m"
"""


def test_the_seed_environment_loads() -> None:
    document = read(SEED)
    assert document.name == "fun-with-python"
    assert document.base == DebianRequest("trixie")
    assert [str(request) for request in document.apt.packages] == [
        "python3",
        "python3-pip",
        "python3-venv",
        "python3-dev",
        "build-essential",
    ]
    assert document.pip.requests[-1] == PipRequest("python-dotenv")
    assert document.files == (FileRequest("/app/app.py", source="app.py"),)
    assert document.verify[2].stdout == r"^\d+\."
    assert document.verify[2].timeout == 30
    assert document.start == Start("python3 /app/app.py", 8000, 1800)


def test_toml_and_pyproject_give_the_same_document() -> None:
    assert read_toml(SEED_TOML) == read(SEED)
    pyproject = SEED_TOML.replace("[[files]]", "[[tool.sandboxfile.files]]")
    pyproject = pyproject.replace("[start]", "[tool.sandboxfile.start]")
    assert read_toml('[project]\nname = "x"\n\n[tool.sandboxfile]\n' + pyproject, "pyproject.toml") == read(
        SEED
    )


def test_every_value_knows_its_line() -> None:
    document = read(SEED)
    places = [document.apt.packages[1].span, document.files[0].span, document.verify[2].span]
    assert [str(place) for place in places] == ["Sandboxfile:4:16", "Sandboxfile:7:12", "Sandboxfile:11:11"]
    toml = read_toml(SEED_TOML)
    assert str(toml.verify[2].span) == "Sandboxfile.toml:9:11"
    assert str(toml.files[0].span) == "Sandboxfile.toml:13:8"


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("debian:13", DebianRequest("trixie")),
        ("debian:bookworm", DebianRequest("bookworm")),
        ("debian:sid", DebianRequest("sid")),
        ("debian:duke", DebianRequest("duke")),
        ("snapshot:tools-0123456789abcdef", SnapshotRequest("tools-0123456789abcdef")),
        ("scratch", ScratchRequest()),
        (
            "{debian: 12, components: [main, contrib]}",
            DebianRequest("bookworm", components=("main", "contrib")),
        ),
        (
            "{debian: trixie, mirror: 'https://mirror.example/debian', snapshot: 2026-11-01}",
            DebianRequest("trixie", "https://mirror.example/debian", "20261101T000000Z"),
        ),
        (f"{{rootfs: root.tar.zst, sha256: {'a' * 64}}}", RootfsRequest("root.tar.zst", "a" * 64)),
    ],
)
def test_bases(text: str, base: object) -> None:
    assert read(f"base: {text}").base == base


def test_a_bare_number_stays_the_text_that_was_written() -> None:
    document = read("""
        base: debian:13
        env: {PYTHON: 3.10, FLAG: true, OCTAL: 0755, EXPONENT: 1e3, QUOTED: "3.10"}
        labels: {version: 1.20}
    """)
    assert dict(document.env) == {
        "PYTHON": "3.10",
        "FLAG": "true",
        "OCTAL": "0755",
        "EXPONENT": "1e3",
        "QUOTED": "3.10",
    }
    assert document.labels == {"version": "1.20"}
    assert read_toml('base = "debian:13"\nenv = { V = 3.10 }').env == {"V": "3.10"}


def test_package_requests_in_all_their_forms() -> None:
    document = read("""
        base: debian:13
        apt:
          packages: [g++, "libc6:amd64", jq=1.7.1-6+deb13u1, git/trixie-backports, "xz=1:2.0~rc1-1"]
          recommends: true
          sources:
            ours:
              uris: https://mirror.example/ours/
              suites: [trixie]
              components: main
              signed-by: keys/ours.asc
        pip:
          packages:
            [Requests, "numpy <3, >=2", "httpx[http2]~=0.27", "tool; python_version < '3.13'", -r all.txt]
          index-url: https://index.example/simple
          extra-index-urls: [https://mirror.example/simple]
          find-links: [wheels]
          constraints: [constraints.txt]
          prereleases: true
          exclude-newer: 2026-11-01
          build: [My_Tool]
          venv: /opt/venv/
    """)
    assert document.apt.packages == (
        AptRequest("g++"),
        AptRequest("libc6", arch="amd64"),
        AptRequest("jq", version="1.7.1-6+deb13u1"),
        AptRequest("git", suite="trixie-backports"),
        AptRequest("xz", version="1:2.0~rc1-1"),
    )
    assert document.apt.recommends
    source = AptSource("ours", ("https://mirror.example/ours",), ("trixie",), ("main",), "keys/ours.asc")
    assert document.apt.sources == (source,)
    assert [request.requirement for request in document.pip.requests] == [
        "requests",
        "numpy<3,>=2",
        "httpx[http2]~=0.27",
        'tool; python_version < "3.13"',
    ]
    assert document.pip.files == (RequirementsFile("all.txt"),)
    assert document.pip.exclude_newer == "2026-11-01T00:00:00Z"
    assert document.pip.build == ("my-tool",)
    assert document.pip.venv == "/opt/venv"
    assert (document.pip.prereleases, document.pip.constraints) == (True, ("constraints.txt",))


def test_steps_checks_and_policy() -> None:
    document = read("""
        base: debian:13
        secrets: [TOKEN, {name: KEY, file: key.pem, hosts: [api.example.org]}]
        run:
          - make
          - {run: fetch, network: true, timeout: 1h30m, secrets: [TOKEN], user: "app:app", workdir: /srv/,
             env: {A: 1}}
          - {run: pull, network: [B.example.org, "*.example.org:443"]}
        verify:
          - {run: "false", exit: 1, stderr: oops, name: fails, network: {allow: [example.org]}}
          - {http: /health, timeout: 5s}
          - {http: {path: /, status: 404, body: nothing, method: HEAD}}
        start: {command: serve, port: 80}
        resources: {memory: 512MB, cpus: 1.5, pids: 64, disk: 2GiB}
        network: {allow: [b.example.org, a.example.org]}
        workdir: /app
        user: app
    """)
    assert document.secrets == (Secret("TOKEN"), Secret("KEY", file="key.pem", hosts=("api.example.org",)))
    assert document.run[0] == RunStep("make")
    assert document.run[1] == RunStep(
        "fetch", None, {"A": "1"}, "/srv", "app:app", network=True, secrets=("TOKEN",), timeout=5400
    )
    assert document.run[2].network == ("b.example.org", "*.example.org:443")
    assert document.verify[0] == Check("false", name="fails", exit=1, stderr="oops", network=("example.org",))
    assert document.verify[1] == Check(http=HttpCheck("/health"), timeout=5)
    assert document.verify[2] == Check(http=HttpCheck("/", 404, "nothing", "HEAD"))
    assert document.resources == Resources(512_000_000, 1.5, 64, 2 * 2**30)
    assert document.network == Network("filtered", ("a.example.org", "b.example.org"))
    assert (document.workdir, document.user) == ("/app", "app")


@pytest.mark.parametrize(
    ("word", "mode"), [("none", "none"), ("false", "none"), ("full", "full"), ("true", "full")]
)
def test_network_words(word: str, mode: str) -> None:
    assert read(f"base: debian:13\nnetwork: {word}").network.mode == mode


@pytest.mark.parametrize(
    ("text", "mode"), [("0755", 0o755), ("755", 0o755), ('"0600"', 0o600), ("4755", 0o4755)]
)
def test_file_modes_are_octal_however_they_are_written(text: str, mode: int) -> None:
    yaml = read(f"base: debian:13\nfiles: [{{from: a, to: /a, mode: {text}}}]")
    assert yaml.files[0].mode == mode


def test_a_toml_octal_number_is_octal() -> None:
    document = read_toml('base = "debian:13"\nfiles = [{ from = "a", to = "/a", mode = 0o644 }]')
    assert document.files[0].mode == 0o644


def test_defaults_are_filled_in() -> None:
    document = read("base: debian:13")
    assert document == Sandboxfile(name="here", base=DebianRequest("trixie"))
    assert (document.workdir, document.user, document.network.mode) == ("/", "root", "none")


def test_anchors_and_merge_keys_work() -> None:
    document = read("""
        base: debian:13
        run:
          - &step {run: one, timeout: 5s, user: app}
          - {<<: *step, run: two}
    """)
    assert [(step.run, step.user, step.timeout) for step in document.run] == [
        ("one", "app", 5),
        ("two", "app", 5),
    ]


def test_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    data = "\ufeffbase: debian:13\r\napt:\r\n  - jq\r\n".encode()
    document = load("Sandboxfile", data)
    assert str(document.apt.packages[0].span) == "Sandboxfile:3:5"
    toml = load("Sandboxfile.toml", b'base = "debian:13"\r\napt = [\r\n  "jq",\r\n]\r\n')
    assert str(toml.apt.packages[0].span) == "Sandboxfile.toml:3:3"


def test_formats_by_file_name() -> None:
    names = ["Sandboxfile", "a/Sandboxfile.yaml", "Sandboxfile.toml", "a/pyproject.toml"]
    assert [format_of(name) for name in names] == ["yaml", "yaml", "toml", "pyproject"]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_an_issue_not_a_crash(opening: str) -> None:
    found = issues("base: debian:13\nenv: " + ("\n  " if opening == "- " else "") + opening * 5000)
    assert found[0].code == "too-deep"


def test_deep_toml_nesting_is_an_issue_not_a_crash() -> None:
    with pytest.raises(SpecError):
        read_toml("a = " + "[" * 5000 + "]" * 5000)


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(SpecError) as caught:
        load("Sandboxfile", b"#" * (2 << 20))
    assert caught.value.issues[0].code == "too-large"


def test_an_alias_to_itself_is_an_issue() -> None:
    assert "stands inside" in issues("base: debian:13\nlabels: &a {x: *a}")[0].message


def test_a_package_asked_for_twice_in_two_versions_is_a_conflict() -> None:
    (issue,) = issues("base: debian:13\napt: [jq=1.7, jq=1.8]")
    assert (issue.code, str(issue.span)) == ("conflict", "Sandboxfile:2:15")


def test_many_entries_take_no_more_than_linear_time() -> None:
    packages = ", ".join(f"p{number}" for number in range(20_000))
    assert len(read(f"base: debian:13\napt: [{packages}]").apt.packages) == 20_000


def test_issues_know_their_path() -> None:
    found = issues("base: debian:13\nverify: [a, b, {run: c, timeout: 5}]\nenv: {A: [x]}\npip: [q q]")
    assert [issue.path for issue in found] == ["verify[2].timeout", "env.A", "pip[0]"]


def test_loading_a_plain_file_imports_no_template_engine_and_no_packaging() -> None:
    """Start-up time: these cost 50 and 20 ms. Asked of a new interpreter, since this one has them."""
    import subprocess

    slow = ("jinja2", "packaging", "tomli", "difflib", "networkx", "httpx")
    code = (
        "import sys; from sandboxfile.spec.load import load;"
        "load('Sandboxfile', b'base: debian:13\\npip: [requests, \"numpy>=2\"]');"
        f"print([name for name in {slow} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
