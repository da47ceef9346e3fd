"""The user's settings: the file, the environment, and which of them wins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandboxfile.errors import Issue, SpecError, UsageError
from sandboxfile.inputs.settings import Settings, config_path, load_settings


def environ(tmp_path: Path, text: str = "", **variables: str) -> dict[str, str]:
    (tmp_path / "config/sandboxfile").mkdir(parents=True, exist_ok=True)
    (tmp_path / "config/sandboxfile/config.toml").write_text(text)
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), **variables}


EVERYTHING = """
home = "~/store"
runtime = "runc"
full-network = "relay"
connections = 3
timeout = 1.5
minimum-rate = 0
caches = ["~/packages", "https://cache.example/p"]
ca-bundle = "/etc/ca.pem"
host-ca = true

[apt]
keyring = "/etc/keys"
snapshot-hosts = ["https://snapshot.example"]

[apt.mirrors]
debian = ["https://mirror.example/debian", "https://mirror.example/other"]
debian-security = "https://mirror.example/security"

[pip]
index-url = "https://index.example/simple"
extra-index-urls = ["https://index.example/extra"]
find-links = ["/wheels"]
"""


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load_settings({"HOME": str(tmp_path)}) == Settings(home=tmp_path / ".local/share/sandboxfile")


def test_the_file_sets_everything(tmp_path: Path) -> None:
    assert load_settings(environ(tmp_path, EVERYTHING)) == Settings(
        home=tmp_path / "store",
        apt_mirrors={
            "debian": ("https://mirror.example/debian", "https://mirror.example/other"),
            "debian-security": ("https://mirror.example/security",),
        },
        snapshot_hosts=("https://snapshot.example",),
        pip_index_url="https://index.example/simple",
        pip_extra_index_urls=("https://index.example/extra",),
        pip_find_links=("/wheels",),
        ca_bundle=Path("/etc/ca.pem"),
        host_ca=True,
        runtime="runc",
        full_network="relay",
        keyring=Path("/etc/keys"),
        connections=3,
        timeout=1.5,
        minimum_rate=0.0,
        caches=(f"{tmp_path}/packages", "https://cache.example/p"),
    )


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = load_settings(
        environ(
            tmp_path,
            EVERYTHING,
            SANDBOXFILE_HOME="/elsewhere",
            SANDBOXFILE_RUNTIME="crun",
            SANDBOXFILE_APT_MIRROR="https://mirror.example/a https://mirror.example/b",
            UV_INDEX_URL="https://index.example/old",
            UV_DEFAULT_INDEX="https://index.example/new",
            UV_INDEX="corp=https://index.example/corp?x=1 https://index.example/y?a=b",
            UV_EXTRA_INDEX_URL="https://index.example/z",
            UV_FIND_LINKS="/a,/b",
            REQUESTS_CA_BUNDLE="/requests.pem",
            SSL_CERT_FILE="/ssl.pem",
        )
    )
    assert settings.home == Path("/elsewhere")
    assert settings.runtime == "crun"
    assert settings.apt_mirrors["debian"] == ("https://mirror.example/a", "https://mirror.example/b")
    assert settings.apt_mirrors["debian-security"] == ("https://mirror.example/security",)
    assert settings.pip_index_url == "https://index.example/new"
    assert settings.pip_extra_index_urls == (
        "https://index.example/corp?x=1",
        "https://index.example/y?a=b",
        "https://index.example/z",
    )
    assert settings.pip_find_links == ("/a", "/b")
    assert settings.ca_bundle == Path("/ssl.pem")


def test_empty_variables_are_as_if_not_set(tmp_path: Path) -> None:
    empty = dict.fromkeys(
        ("SANDBOXFILE_HOME", "SANDBOXFILE_RUNTIME", "SANDBOXFILE_APT_MIRROR", "UV_INDEX_URL"), ""
    )
    text = EVERYTHING.replace("~/store", "/store")
    assert load_settings(environ(tmp_path, text, **empty)) == load_settings(environ(tmp_path, text))


def test_the_caller_s_home_wins_over_both(tmp_path: Path) -> None:
    given = environ(tmp_path, EVERYTHING, SANDBOXFILE_HOME="/elsewhere")
    assert load_settings(given, home=Path("/mine")).home == Path("/mine")


def test_places_follow_the_xdg_specification(tmp_path: Path) -> None:
    assert config_path({"HOME": "/h"}) == Path("/h/.config/sandboxfile/config.toml")
    assert config_path({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}) == Path("/c/sandboxfile/config.toml")
    assert config_path({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}) == Path(
        "/h/.config/sandboxfile/config.toml"
    )
    assert load_settings({"HOME": str(tmp_path), "XDG_DATA_HOME": "/data"}).home == Path("/data/sandboxfile")


def test_another_file_can_be_named_and_must_then_exist(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("connections = 2\n")
    named = environ(tmp_path, EVERYTHING, SANDBOXFILE_CONFIG=str(tmp_path / "other.toml"))
    assert load_settings(named).connections == 2
    with pytest.raises(UsageError, match="no settings file"):
        load_settings({"HOME": str(tmp_path), "SANDBOXFILE_CONFIG": str(tmp_path / "missing.toml")})
    with pytest.raises(UsageError, match="cannot be read"):
        load_settings({"HOME": str(tmp_path), "SANDBOXFILE_CONFIG": str(tmp_path)})


def issues(tmp_path: Path, text: str) -> tuple[Issue, ...]:
    with pytest.raises(SpecError) as caught:
        load_settings(environ(tmp_path, text))
    return caught.value.issues


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = [", 1, "not valid TOML"),
        ("\nruntime = 3", 2, "`runtime` must be a text"),
        ("\nhome = 'relative'", 2, "absolute path"),
        ("connections = 0", 1, "from 1 to 64"),
        ("connections = 2.5", 1, "whole number"),
        ("connections = true", 1, "whole number"),
        ("timeout = 'long'", 1, "`timeout` must be a number"),
        ("timeout = nan", 1, "`timeout` must be a number"),
        ("host-ca = 1", 1, "true or false"),
        ("apt = 3", 1, "`apt` must be a table"),
        ("[apt]\nmirrors = 3", 2, "`apt.mirrors` must be a table"),
        ("[apt.mirrors]\n# x\ndebian = [1]", 3, "`apt.mirrors.debian` must be a list of texts"),
        ("[pip]\nfind-links = {}", 2, "list of texts"),
    ],
)
def test_what_is_wrong_is_shown_at_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    (issue,) = issues(tmp_path, text)
    assert message in issue.message
    assert issue.span is not None
    assert issue.span.line == line
    assert issue.span.source.name.endswith("sandboxfile/config.toml")


def test_an_unknown_setting_is_refused_with_a_near_miss(tmp_path: Path) -> None:
    first, second = issues(tmp_path, 'runtim = "crun"\n[pip]\nindex_url = "x"\n')
    assert (first.message, first.hint) == ("there is no setting `runtim`", "did you mean `runtime`?")
    assert (second.message, second.hint) == (
        "there is no setting `pip.index_url`",
        "did you mean `index-url`?",
    )
    assert second.span is not None
    assert second.span.line == 3


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    given = environ(tmp_path)
    config_path(given).write_bytes(b'runtime = "\xff"\n')
    with pytest.raises(SpecError, match="not UTF-8"):
        load_settings(given)


def test_addresses_are_not_shown_since_they_may_hold_passwords(tmp_path: Path) -> None:
    settings = load_settings(environ(tmp_path, UV_INDEX_URL="https://me:hunter2@index.example"))
    assert "hunter2" not in repr(settings)


def test_without_a_file_no_toml_reader_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from sandboxfile.inputs.settings import load_settings\n"
        f"load_settings({{'HOME': {str(tmp_path)!r}}})\n"
        "heavy = {'tomllib', 'tomli', 'yaml', 'httpx', 'networkx', 'asyncio', 'packaging'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_connects_networks_is_one_of_two(tmp_path: Path) -> None:
    def loaded(text: str, **variables: str) -> str | None:
        return load_settings(environ(tmp_path, text, **variables)).full_network

    relay = 'full-network = "relay"\n'
    assert loaded(relay) == "relay"
    assert loaded(relay, SANDBOXFILE_FULL_NETWORK="pasta") == "pasta"
    assert loaded(relay, SANDBOXFILE_FULL_NETWORK="") == "relay"
    with pytest.raises(UsageError, match="SANDBOXFILE_FULL_NETWORK is `slirp`"):
        loaded(relay, SANDBOXFILE_FULL_NETWORK="slirp")
    (issue,) = issues(tmp_path, 'full-network = "slirp"\n')
    assert "must be pasta or relay" in issue.message
