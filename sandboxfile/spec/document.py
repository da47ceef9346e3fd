"""The tables of keys: what a Sandboxfile and a recipe may hold. The loader and the JSON Schema both read
them, so that neither can know a key the other does not."""

from __future__ import annotations

from sandboxfile.spec import words
from sandboxfile.spec.sections import (
    AGE,
    APT,
    BASE,
    DIRECTORY,
    DURATION,
    ENV,
    HOSTS,
    LINE,
    NETWORK,
    PARAMS,
    PATTERN,
    PIP,
    RECIPE_PIP,
    SIZE,
    TEXT,
    USE,
    USER,
)
from sandboxfile.spec.shape import Integer, Key, Listing, Names, NotYet, Number, OneOf, Shape, Table, Text

FILES = Listing(
    Table(
        (
            Key("from", Text("a path", words.context_path), "What to copy, relative to the Sandboxfile."),
            Key(
                "to",
                Text("an absolute path", words.target_path, "^/", numeric=False),
                "Where to put it; a path ending in `/` is a directory to put it into.",
                required=True,
            ),
            Key("content", TEXT, "The content itself, in place of `from`."),
            Key(
                "mode",
                Text("a file mode such as `0755`", words.mode, "^(0o)?[0-7]{3,4}$"),
                "Permission bits, octal.",
            ),
            Key("owner", Text("a user", words.user), "`user`, `user:group` or numbers; root when not given."),
        ),
        "a mapping with `from` or `content`, and `to`",
    ),
    "a list of files",
)

_WHERE = (
    Key("name", LINE, "A name for reports."),
    Key("env", ENV, "More environment variables."),
    Key("workdir", DIRECTORY, "The directory to run in."),
    Key("user", USER, "The user to run as."),
    Key("network", NETWORK, "What may be reached; nothing when not given."),
    Key("timeout", DURATION, "How long it may take."),
)
_RUN = Key("run", LINE, "The command, given to `/bin/sh -ec`.", required=True)
RUN = Listing(
    OneOf(
        scalar=LINE,
        mapping=Table(
            (
                _RUN,
                *_WHERE,
                Key(
                    "secrets",
                    Listing(Text("the name of a secret", words.secret_name), unique=str),
                    "Secrets it may read, at `/run/secrets/NAME`.",
                ),
            ),
            "a mapping with `run`",
        ),
    ),
    "a list of steps",
)

_HTTP = OneOf(
    scalar=Text("the path of a request", words.http_path, "^/", numeric=False),
    mapping=Table(
        (
            Key(
                "path",
                Text("the path of a request", words.http_path, "^/", numeric=False),
                "The path to ask for.",
                required=True,
            ),
            Key("status", Integer(100, 599, "a status"), "The status expected; 200 when not given."),
            Key("body", PATTERN, "A pattern to find in the answer."),
            Key(
                "method",
                Text("a method", choices=("GET", "HEAD", "POST", "OPTIONS")),
                "`GET` when not given.",
            ),
        ),
        "a mapping with `path`",
    ),
)
VERIFY = Listing(
    OneOf(
        scalar=LINE,
        tables=(
            Table(
                (
                    _RUN,
                    *_WHERE,
                    Key("exit", Integer(0, 255, "an exit code"), "The exit code expected; 0 when not given."),
                    Key("stdout", PATTERN, "A pattern to find in the output.", examples=(r"^\d+\.",)),
                    Key("stderr", PATTERN, "A pattern to find in the error output."),
                )
            ),
            Table(
                (
                    Key("http", _HTTP, "A request to the port of `start`.", required=True, examples=("/",)),
                    Key("name", LINE, "A name for reports."),
                    Key("timeout", DURATION, "How long until the answer must be right."),
                )
            ),
        ),
    ),
    "a list of checks",
)

START = OneOf(
    scalar=LINE,
    mapping=Table(
        (
            Key("command", LINE, "The long-running command, given to `/bin/sh -c`.", required=True),
            Key("port", Integer(1, 65535, "a port"), "The port it listens on.", examples=(8000,)),
            Key("timeout", DURATION, "`up` ends after this time.", examples=("30m",)),
        ),
        "a mapping with `command`",
    ),
)

SECRETS = Listing(
    OneOf(
        scalar=Text("the name of a secret", words.secret_name),
        mapping=Table(
            (
                Key("name", Text("the name of a secret", words.secret_name), "Its name.", required=True),
                Key(
                    "env",
                    Text("a name", words.env_name),
                    "The caller's variable that holds it; its name otherwise.",
                ),
                Key("file", LINE, "The caller's file that holds it."),
                Key("hosts", HOSTS, "The hosts it may be sent to."),
            ),
            "a mapping with `name`",
        ),
    ),
    "a list of secrets",
)

LABELS = Names(Text("a name", words.label_name, "^[A-Za-z0-9]"), TEXT, "a mapping of names to text")

RESOURCES = Table(
    (
        Key("memory", SIZE, "Memory.", examples=("512MB",)),
        Key("cpus", Number("a number of cores"), "Cores.", examples=(1.5,)),
        Key("pids", Integer(1, 4_194_304, "a number of processes"), "Processes.", examples=(256,)),
        Key("disk", SIZE, "What it may write.", examples=("2GiB",)),
    ),
    "a mapping of limits",
)


def _key(name: str, shape: Shape, doc: str, *examples: object, required: bool = False) -> Key:
    return Key(name, shape, doc, required, examples)


_SHARED = (
    _key("params", PARAMS, "Typed parameters, used as `{{ params.NAME }}`."),
    _key("use", USE, "Recipes to include, in order.", ["python-dev"]),
    _key("apt", APT, "Debian packages.", ["python3", "jq"]),
)
_SHARED_BELOW = (
    _key("env", ENV, "Environment of steps and sandboxes.", {"LANG": "C.UTF-8"}),
    _key(
        "workdir", DIRECTORY, "The directory that steps and sandboxes start in; `/` when not given.", "/app"
    ),
    _key("user", USER, "The user of steps and sandboxes; `root` when not given.", "app"),
    _key(
        "files",
        FILES,
        "Files to place, from the build context or inline.",
        [{"from": "app.py", "to": "/app/app.py"}],
    ),
    _key("run", RUN, "Build steps, in order; without network unless a step asks for it.", ["make -C /app"]),
    _key("verify", VERIFY, "Checks that the result must pass.", ["python3 --version"]),
    _key(
        "start",
        START,
        "The long-running command that `up` starts.",
        {"command": "python3 /app/app.py", "port": 8000},
    ),
    _key(
        "secrets",
        SECRETS,
        "Secrets that steps and sandboxes may use, by name; never their values.",
        ["TOKEN"],
    ),
    _key("labels", LABELS, "Free text that is kept with the snapshot.", {"team": "data"}),
)

DOCUMENT = Table(
    (
        _key(
            "name",
            Text("a name", words.document_name),
            "The environment's name; the directory's otherwise.",
            "tools",
        ),
        _key("base", BASE, "What everything is built on.", "debian:13", required=True),
        *_SHARED,
        _key("pip", PIP, "Python distributions, installed with uv.", ["requests", "numpy>=2"]),
        *_SHARED_BELOW,
        _key(
            "freshness", AGE, "How old the lock may be before `plan` says what a refresh would change.", "7d"
        ),
        _key("resources", RESOURCES, "Limits of sandboxes booted from the result.", {"memory": "512MB"}),
        _key(
            "network",
            NETWORK,
            "What sandboxes booted from the result may reach; `none` when not given.",
            "none",
        ),
        _key(
            "stages",
            NotYet(
                "`stages` is reserved; this version builds one environment a file",
                "write a file for each stage",
            ),
            "Several environments in one file: reserved.",
        ),
    )
)

RECIPE = Table(
    (
        _key("description", LINE, "What the recipe brings, in one line.", required=True),
        *_SHARED,
        _key("pip", RECIPE_PIP, "Python distributions, installed with uv."),
        *_SHARED_BELOW,
    )
)
