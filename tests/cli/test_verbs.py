"""What each verb prints, and where."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.cli.conftest import Session
from tests.cli.fake import SLUG

Make = Callable[..., Session]


def test_init_writes_a_sandboxfile_once(sandboxfile: Make) -> None:
    session = sandboxfile()
    session.run("init", "demo").stdout("demo/Sandboxfile").stderr(
        "wrote demo/Sandboxfile; `sandboxfile -C demo build` builds it"
    ).exits(0)
    written = (session.directory / "demo" / "Sandboxfile").read_text()
    assert "base:" in written
    session.run("init", "demo").stdout("").stderr(
        "error: there is a `demo/Sandboxfile` already\nhint: `--force` replaces it"
    ).exits(2)
    (session.directory / "demo" / "Sandboxfile").write_text("old")
    session.run("init", "demo", "--force", "-q").stderr("").exits(0)
    assert (session.directory / "demo" / "Sandboxfile").read_text() == written
    assert [path.name for path in (session.directory / "demo").iterdir()] == ["Sandboxfile"]


def test_what_init_writes_passes_check(sandboxfile: Make) -> None:
    session = sandboxfile()
    session.run("init").exits(0)
    session.run("check").stdout("").exits(0)


def test_check_says_what_it_found(sandboxfile: Make) -> None:
    sandboxfile().fake().run("check").stdout("").stderr(
        "Sandboxfile: no problems in `demo` (1 run step, 1 check)"
    ).exits(0)
    assert sandboxfile().fake().run("check", "--json").json()["problems"] == 0


def test_check_points_at_the_problem(sandboxfile: Make) -> None:
    sandboxfile(
        """
        base: debian:13
        rnu: []
        """
    ).run("check").stdout("").stderr(
        """
        error: unknown key `rnu`
          --> Sandboxfile:2:1
           |
         2 | rnu: []
           | ^^^
        hint: did you mean `run`?
        """
    ).exits(2)


def test_build_prints_the_slug_last(sandboxfile: Make) -> None:
    sandboxfile().fake().run("build").stdout(SLUG).stderr(
        "1 layer built, 1 reused, 1 check passed (2.0 s)"
    ).exits(0)
    document = sandboxfile().fake().run("build", "--json", "--force", "run-1").json()
    assert document["slug"] == SLUG
    assert document["built"] == ["run-1"]


def test_build_says_what_changed_in_the_lock(sandboxfile: Make) -> None:
    changes = [f"+ p{number} 1" for number in range(22)]
    ended = sandboxfile().fake(lock=changes).run("build").exits(0)
    said = ended.err.splitlines()
    assert said[:2] == ["wrote sandboxfile.lock", "  + p0 1"]
    assert said[20:22] == ["  + p19 1", "  and 2 more"]


def test_a_build_that_finds_nothing_changed_does_nothing(sandboxfile: Make) -> None:
    session = sandboxfile().fake(unchanged=True)
    session.run("build").stdout(SLUG).stderr("nothing changed, 2 layers reused (0.0 s)").exits(0)
    session.run("run", "--", "true").exits(0)
    assert session.calls("load") == session.calls("build") == []
    session.run("build", "--force", "run-1").exits(0)
    assert session.calls("build")[0]["force"] == ["run-1"]


def test_lock_prints_what_changed(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("lock", "--update", "jq").stdout("+ jq 1.7.1-6").stderr("wrote sandboxfile.lock").exits(0)
    session.run("lock", "--update").exits(0)
    session.run("lock").exits(0)
    assert [call["update"] for call in session.calls("lock")] == [["jq"], [], None]
    session.fake(settled=True).run("lock").stdout("").stderr("nothing changed in sandboxfile.lock").exits(0)


def test_lock_check_changes_nothing(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("lock", "--check").stdout("").stderr("sandboxfile.lock answers Sandboxfile").exits(0)
    session.run("lock", "--locked").exits(0)
    assert session.calls("lock") == []


def test_vendor_prints_its_place_and_check_every_difference(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    written = session.run("vendor", "there.tar").exits(0)
    assert written.out.endswith("/there.tar\n")
    assert written.err.startswith("1 added, 1 replaced, 1 removed in ")
    assert session.calls("vendor")[0]["place"].endswith("/there.tar")
    checked = session.run("vendor", "--check").exits(1)
    assert checked.out.splitlines() == [
        "missing     apt/jq.deb", "damaged     pip/bad.whl", "not wanted  pip/old.whl"
    ]  # fmt: skip
    assert session.run("vendor", "--json").json()["added"] == ["apt/jq.deb"]
    settled = session.fake(settled=True).run("vendor", "--check").stdout("").exits(0)
    assert settled.err.endswith("holds what the lock names (3 files, 1.2 kB)\n")


def test_lock_takes_an_older_index_when_told(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("lock", "--accept-older").exits(0)
    session.run("lock").exits(0)
    assert [call["accept_older"] for call in session.calls("lock")] == [True, False]


def test_lock_squashes_and_moves_security_updates_alone(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("lock", "--squash").exits(0)
    session.run("lock", "--update", "--security").exits(0)
    session.run("lock", "--update", "jq", "--security").exits(0)
    calls = [(call["squash"], call["security"], call["update"]) for call in session.calls("lock")]
    assert calls == [(True, False, None), (False, True, []), (False, True, ["jq"])]
    assert "add `--update`" in session.run("lock", "--security").exits(2).err
    for other in ("--update", "--refresh", "--check", "--locked"):
        assert "`--squash` moves no package" in session.run("lock", "--squash", other).exits(2).err


def test_outdated_lists_layers_versions_and_what_is_to_be_known(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    ended = session.run("outdated").exits(0)
    assert [line.split() for line in ended.out.splitlines()] == [
        ["base", "zlib1g", "1.0", "->", "1.1", "security,", "hidden", "by", "apt-2"],
        ["apt-1", "jq", "1.7", "->", "1.8", "security"],
        ["apt-1", "tree", "2.1", "->", "2.2"],
        ["pip-1", "idna", "3.9", "withdrawn", "from", "the", "index"],
    ]
    assert ended.err.splitlines() == [
        "2 of 80 pinned packages have newer versions, 1 of them for security; 1 vulnerable package hidden in "
        "lower layers; `sandboxfile lock --update --security` moves those",
        "not known: six: the package index does not answer",
    ]
    session.run("outdated", "--check").exits(1)
    document = session.run("outdated", "--security", "--check", "--json").exits(1)
    assert [each["name"] for each in document.json()["packages"]] == ["zlib1g", "jq"]
    session.run("outdated", "--refresh", "--offline").exits(0)
    assert session.calls("outdated")[-1] == {"refresh": False, "offline": True}
    session.fake(settled=True).run("outdated", "--check").stdout("").stderr(
        "0 of 80 pinned packages have newer versions"
    ).exits(0)


def test_lock_pylock_prints_pep_751(sandboxfile: Make) -> None:
    assert sandboxfile().fake().run("lock", "--pylock").exits(0).out.startswith("lock-version")


def test_plan_explain_and_graph_print_the_plan(sandboxfile: Make) -> None:
    session = sandboxfile().fake(log=True)
    assert "+ build" in session.run("plan").exits(0).out
    document = session.run("plan", "--json").json()
    assert [layer["name"] for layer in document["layers"]] == ["base", "run-1"]
    assert session.run("graph").exits(0).out.startswith("digraph")
    assert session.run("graph", "--format", "mermaid").exits(0).out.startswith("flowchart")
    explained = session.run("explain", "run-1").exits(0).out
    assert "make all" in explained
    assert "normalisation rules" in explained
    assert session.run("explain", "run-1", "--json").json()["definition"]["command"] == "make all"
    assert [each["name"] for each in session.run("explain", "--json").json()] == ["base", "run-1", "verify-1"]
    session.run("explain", "run-1", "--log").stdout("made").exits(0)
    assert "did you mean `run-1`?" in session.run("explain", "run-11").exits(2).err


def test_a_layer_without_a_log_says_why(sandboxfile: Make) -> None:
    sandboxfile().fake().run("explain", "run-1", "--log").stdout("").stderr(
        """
        error: no log is kept for `run-1`
        hint: it gets one when it is built here; `sandboxfile build --force` builds it again
        """
    ).exits(3)


def test_verify_names_what_passed(sandboxfile: Make) -> None:
    sandboxfile().fake().run("verify").stdout("verify-1").stderr("1 check passed").exits(0)
    assert sandboxfile().fake().run("verify", "--json").json() == {"passed": ["verify-1"]}


def test_running_sandboxes_are_listed(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    header, *rows = [re.split(r" {2,}", line) for line in session.run("sandboxes").exits(0).out.splitlines()]
    assert header == ["ID", "ROOT", "CREATED", "ENDS", "OF", "URL"]
    assert [(row[0], *row[-2:]) for row in rows] == [
        ("sbx_loc_two", "detached", "http://127.0.0.1:1"),
        ("sbx_loc_one", "process 42", "-"),
    ]
    listed = session.run("sandboxes", "list", "--json").json()
    assert [(each["id"], each["detached"], each["client"]) for each in listed] == [
        ("sbx_loc_two", True, 7),
        ("sbx_loc_one", False, 42),
    ]
    session.fake(empty=True).run("sandboxes").stdout("").stderr("no sandbox runs").exits(0)


def test_sandboxes_wants_to_know_which(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    for words in (["list", "one"], ["logs"], ["logs", "one", "two"], ["kill"], ["stop", "one"]):
        session.run("sandboxes", *words).stdout("").exits(2)


def test_snapshots_are_listed_shown_and_removed(sandboxfile: Make) -> None:
    session = sandboxfile().fake(config={"workdir": "/app"})
    session.run("snapshots").stdout(
        f"""
        SLUG                   NAME  SIZE    LAYERS  CREATED  USED
        {SLUG}  demo  1.4 MB  1       -        -
        """
    ).exits(0)
    assert session.run("snapshots", "list", "--json").json()[0]["slug"] == SLUG
    assert 'workdir  "/app"' in session.run("snapshots", "show", "demo").exits(0).out
    session.run("snapshots", "rm", "demo", SLUG).stdout(SLUG).exits(0)
    assert session.calls("removed") == [{"slug": SLUG}]
    session.run("snapshots", "rm", "demo", "dmeo").stdout("").exits(2)
    assert session.calls("removed") == [{"slug": SLUG}]
    session.fake(empty=True).run("snapshots").stdout("").stderr(
        "there are no snapshots; `sandboxfile build` makes one"
    ).exits(0)


def test_cache_shows_and_frees(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    shown = session.run("cache").exits(0).out.splitlines()
    assert [line.split() for line in shown] == [
        ["KIND", "LAYERS", "PACKAGES", "SIZE", "SHARED", "LAST", "USED"],
        ["layers:", "apt", "2", "-", "437", "MB", "400", "MB", *shown[1].split()[-2:]],
        ["logs", "-", "-", "1.2", "kB", "-", "-"],
        ["total", "437", "MB"],
    ]
    session.run("cache", "du", "--by", "group", "--json").exits(0)
    assert session.calls("du")[-1] == {"by": "group"}
    document = session.run("cache", "--json").json()
    assert (document["by"], document["total"], document["rows"][0]["shared"]) == (
        "kind",
        437_001_200,
        400_000_000,
    )


def test_gc_says_what_goes_and_why(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("cache", "gc", "--dry-run", "--keep-days", "2").stdout(
        """
        layers  1.0 MB
        total   1.0 MB
        """
    ).stderr("would go:  layers  apt-1  1.0 MB  nothing needs it\n1.0 MB would be freed").exits(0)
    call = session.calls("gc")[0]
    assert (call["dry_run"], call["keep_days"]) == (True, 2.0)
    session.run("cache", "gc", "--max-size", "2GB", "--keep-bytes", "1MB", "--min-free", "5GB", "-q").exits(0)
    call = session.calls("gc")[1]
    assert (call["max_size"], call["keep_bytes"], call["min_free"]) == (
        2_000_000_000,
        1_000_000,
        5_000_000_000,
    )
    assert "stays:  layers  base  2 B  the snapshot demo-1 needs it" in session.run("cache", "gc", "-v").err
    evicted = session.run("cache", "gc", "--json").json()["evicted"]
    assert [(each["title"], each["reason"]) for each in evicted] == [("apt-1", "nothing needs it")]


def test_gc_of_everything_forgets_the_snapshots_first(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    session.run("cache", "gc", "--all").exits(0)
    assert session.calls("removed") == [{"slug": SLUG}]
    assert session.calls("gc")[0]["keep_days"] == 0.0


def test_cache_check_exits_1_with_what_is_wrong_and_what_repairs_it(sandboxfile: Make) -> None:
    session = sandboxfile().fake(damaged=True)
    session.run("cache", "check").stdout(
        f"layer sha256:{'a' * 64}: `apt-1`: its directory is missing; "
        "repaired by sandboxfile cache check --repair"
    ).stderr(
        """
        1 leftover of killed programs, which `sandboxfile cache gc` removes
        1 problem in 3 layers, 1 snapshot
        """
    ).exits(1)
    session.run("cache", "check", "--repair", "-q").stdout("").exits(0)
    document = sandboxfile().fake().run("cache", "check", "--full", "--json").exits(0).json()
    assert (document["problems"], document["leftovers"]) == ([], ["trash/x"])


def test_explain_lists_and_explains_earlier_builds(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    listed = session.run("explain", "--builds").exits(0).out.splitlines()
    assert listed[1].split()[0] == "1"
    assert listed[1].endswith("1      run-1: command: make -> make old")
    explained = session.run("explain", "--build", "1", "run-1").exits(0).out
    assert "action   build: command: make -> make old" in explained
    assert "command  make old" in explained
    assert "now      no longer in the store" in explained
    assert session.run("explain", "--build", "1", "--json").json()["actions"][0]["name"] == "run-1"
    session.run("explain", "--build", "7").exits(2)
    session.run("explain", "--build", "1", "apt-9").stderr(
        "error: build 1 had no layer or check called `apt-9`\nhint: it had run-1"
    ).exits(2)


def test_expect_cached_fails_with_the_first_miss(sandboxfile: Make) -> None:
    session = sandboxfile().fake()
    ran = session.run("build", "--expect-cached").stdout("").exits(1)
    assert ran.err.startswith("error: `run-1` would have to be built: command: a -> b")
    session.run("build", "--expect-cached", "--force", "run-1").exits(2)


def test_schema_is_json(sandboxfile: Make) -> None:
    assert "$schema" in sandboxfile().run("schema").exits(0).json()


def test_doctor_prints_each_requirement_and_its_remedy(sandboxfile: Make) -> None:
    session = sandboxfile().fake(
        requirements=[["crun", True, "1.14", ""], ["pasta", False, "not found", "apt-get x"]]
    )
    session.run("doctor").stdout(
        """
        ok       crun   1.14
        missing  pasta  not found
                  apt-get x
        """
    ).stderr("1 requirement missing: pasta").exits(3)
    assert session.run("doctor", "--json").exits(3).json()[1]["remedy"] == "apt-get x"
    session.fake(requirements=[["crun", True, "1.14", ""]]).run("doctor", "-q").stderr("").exits(0)


def test_doctor_knows_this_machine(sandboxfile: Make) -> None:
    ended = sandboxfile().run("doctor", "--json")
    assert ended.code in {0, 3}
    assert all({"name", "ok", "needed", "detail", "remedy"} == each.keys() for each in ended.json())


@pytest.mark.parametrize("verb", ["plan", "build", "lock", "verify", "check"])
def test_without_a_sandboxfile_every_verb_says_how_to_make_one(sandboxfile: Make, verb: str) -> None:
    ended = sandboxfile().run(verb).exits(2)
    assert ended.err.startswith("error: there is no Sandboxfile in ")
    assert "sandboxfile init" in ended.err
