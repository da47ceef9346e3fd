"""The same bytes: another user, path, umask, clock and locale build layers of the same digests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Program, User, install_for

pytestmark = [pytest.mark.host, pytest.mark.network, pytest.mark.root]

EVERYTHING = """\
apt: [python3, jq]
pip: [idna]
files:
  - {content: "owned\\n", to: /srv/note, owner: "33:33", mode: "0640"}
run:
  - date "+year %Y"
  - useradd --create-home worker
  - mkdir -p /opt/made && jq -n '{a:1}' > /opt/made/a.json && touch /opt/made/empty
  - python3 -c "import zipfile; zipfile.ZipFile('/opt/made/a.zip', 'w').write('/srv/note')"
  - python3 -m compileall -q /opt
verify:
  - test -s /opt/made/a.json
"""
LATER = '''\
#!/usr/bin/python3 -I
"""An OCI runtime whose guests live four hundred days later."""
import json, os, sys

LIBRARY = {library!r}
arguments = sys.argv[1:]
if "--bundle" in arguments:
    path = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    with open(path) as file:
        config = json.load(file)
    # Only what the guest calls the time: the times of files are the kernel's, as they are for everybody.
    config["process"]["env"] += ["LD_PRELOAD=/dev/later.so", "FAKETIME=+400d", "NO_FAKE_STAT=1"]
    bound = {{"destination": "/dev/later.so", "source": LIBRARY, "type": "bind", "options": ["bind", "ro"]}}
    config["mounts"].append(bound)
    with open(path, "w") as file:
        json.dump(config, file)
os.execv({runtime!r}, [{runtime!r}, *arguments])
'''


def digests(home: Path) -> dict[str, tuple[str, str]]:
    """Kind and digest of every layer of a store, by key."""
    records = [json.loads(path.read_bytes()) for path in (home / "layers").glob("*/layer.json")]
    return {record["key"]: (record["kind"], record["diff_id"]) for record in records}


def later_runtime(place: Path) -> Path:
    """An OCI runtime that shows its guests another time."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    runtime = shutil.which("crun") or shutil.which("runc")
    assert runtime is not None
    copy = place / "later.so"
    shutil.copy(library, copy)
    copy.chmod(0o755)
    wrapper = place / "later"
    wrapper.write_text(LATER.format(library=str(copy), runtime=runtime))
    wrapper.chmod(0o755)
    return wrapper


def test_another_user_path_umask_clock_and_locale_give_the_same_bytes(
    based: Callable[[str], Program], user: User, tmp_path: Path
) -> None:
    first = based(EVERYTHING)
    slug = first("build").last
    there = user.home / "another place"
    shutil.copytree(first.directory, there / "project")
    shutil.copytree(first.home / "blobs", there / "store" / "blobs")
    (there / "store").chmod(0o700)
    runtime = later_runtime(there)
    installed = install_for(user, tmp_path)
    subprocess.run(["chown", "--recursive", f"{user.name}:{user.name}", user.home], check=True)
    second = Program(
        there / "project",
        there / "store",
        env={
            "HOME": str(user.home),
            "USER": user.name,
            "XDG_RUNTIME_DIR": "",
            "LC_ALL": "tr_TR.UTF-8",
            "TZ": "Japan",
        },
        prefix=("sh", "-c", 'umask 077; exec "$@"', "sh", "faketime", "-f", "+2d", *user.prefix),
        program=(installed,),
    )
    slug_there = second("--runtime", str(runtime), "--locked", "--offline", "build").last
    assert slug_there == slug
    layers = json.loads(first("snapshots", "show", slug, "--json").stdout)["layers"]
    here, elsewhere = digests(first.home), digests(second.home)
    assert {key: elsewhere[key] for key in layers} == {key: here[key] for key in layers}
    # The clock was another one indeed, in the steps of the second build.
    years = [
        re.findall(r"^year (\d+)$", each("explain", "run-1", "--log").stdout, re.MULTILINE)
        for each in (first, second)
    ]
    assert int(years[1][0]) > int(years[0][0])
