"""Shapes of the sections that say what an environment is made of: base, parameters, recipes, packages."""

from __future__ import annotations

from sandboxfile.spec import packages, words
from sandboxfile.spec.shape import Boolean, Key, Listing, Names, NotYet, OneOf, Table, Text

PARAM_TYPES = ("string", "integer", "boolean", "list")

TEXT = Text(parse=words.plain)
LINE = Text(parse=words.line)
DURATION = Text(
    "a duration such as `30s`",
    words.duration,
    r"^(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?(\d+ms)?$",
    numeric=False,
)
AGE = Text("an age such as `7d`", words.age, r"^\d{1,4}[hdw]$", numeric=False)
SIZE = Text("a size such as `512MB`", words.size, r"^\d+(\.\d+)? ?([kKMGT]?B|[KMGT]iB)$", numeric=False)
PATTERN = Text("a regular expression", words.pattern)
URL = Text("an address", words.url, "^https?://", numeric=False)
DIRECTORY = Text("an absolute path", words.directory, "^/", numeric=False)
USER = Text("a user", words.user)
HOSTS = Listing(Text("a host name", words.host, numeric=False), "a list of hosts", str)
ENV = Names(Text("a name", words.env_name, "^[A-Za-z_][A-Za-z0-9_]*$"), TEXT, "a mapping of names to text")


def _one_or_many(item: Text) -> OneOf:
    return OneOf(scalar=item, sequence=Listing(item, f"a list of {item.what}"))


NETWORK = OneOf(
    scalar=Text("`none` or `full`", words.network),
    sequence=HOSTS,
    tables=(
        Table(
            (
                Key(
                    "allow",
                    HOSTS,
                    "The hosts that may be reached.",
                    required=True,
                    examples=(["example.org"],),
                ),
            ),
            "a mapping with `allow`",
        ),
    ),
)

BASE = OneOf(
    scalar=Text(
        "a base such as `debian:13`", packages.base, r"^(debian:\S+|snapshot:\S+|scratch)$", numeric=False
    ),
    tables=(
        Table(
            (
                Key(
                    "debian",
                    Text("a suite", packages.suite),
                    "The suite, by number or code name.",
                    True,
                    (13,),
                ),
                Key(
                    "mirror",
                    URL,
                    "The archive to bootstrap from.",
                    examples=("https://mirror.example/debian",),
                ),
                Key(
                    "snapshot",
                    Text("a time", packages.snapshot_time),
                    "Take the archive as it was at this time.",
                    examples=("2026-11-01T00:00:00Z",),
                ),
                Key(
                    "components",
                    Listing(Text("a component", packages.component), unique=str),
                    "Components of the archive; `main` when not given.",
                    examples=(["main", "contrib"],),
                ),
            )
        ),
        Table(
            (
                Key(
                    "rootfs",
                    Text("a path or an address", packages.rootfs_location),
                    "A tar of a root filesystem, in the build context or at an address.",
                    required=True,
                    examples=("rootfs.tar",),
                ),
                Key(
                    "sha256",
                    Text("a sha256 digest", packages.sha256),
                    "The digest of that tar, 64 hexadecimal digits.",
                    required=True,
                    examples=("0" * 64,),
                ),
            )
        ),
        Table(
            (
                Key(
                    "image",
                    NotYet(
                        "this version cannot start from an OCI image yet",
                        "use `debian:13`, or the image's root filesystem as `{rootfs: FILE, sha256: HEX}`",
                    ),
                    "An OCI image: reserved.",
                ),
            )
        ),
    ),
)

PARAM_TEXT = OneOf(scalar=TEXT, sequence=Listing(TEXT))
PARAMS = Names(
    Text("a name", words.param_name, "^[A-Za-z_][A-Za-z0-9_]*$"),
    Table(
        (
            Key("type", Text("a type", choices=PARAM_TYPES), "What values are; `string` when not given."),
            Key(
                "default", PARAM_TEXT, "The value when none is given; a parameter without one must be given."
            ),
            Key("help", TEXT, "What it is for, in one line."),
            Key("choices", Listing(TEXT, unique=str), "The values it may have."),
            Key("pattern", PATTERN, "A regular expression that the whole value must match."),
        ),
        "a mapping with `type`, `default`, `help`",
    ),
    "a mapping of parameters",
)

_RECIPE_NAME = Text("a recipe", words.recipe_name)
USE = Listing(
    OneOf(
        scalar=_RECIPE_NAME,
        tables=(
            Table(
                (
                    Key(
                        "recipe",
                        _RECIPE_NAME,
                        "The recipe: a shipped one by name, or a directory (`./path`).",
                        True,
                    ),
                    Key("params", Names(TEXT, PARAM_TEXT), "Values for the recipe's parameters."),
                )
            ),
        ),
    ),
    "a list of recipes",
)

APT_PACKAGES = Listing(
    Text("a package", packages.apt_request, numeric=False), "a list of packages", packages.request_name
)
APT_SOURCE = Table(
    (
        Key(
            "uris",
            _one_or_many(Text("an address", packages.archive_address, "^https?://", numeric=False)),
            "Where it is.",
            True,
        ),
        Key("suites", _one_or_many(Text("a suite", packages.archive_suite)), "Its suites.", True),
        Key("components", _one_or_many(Text("a component", packages.component)), "Its components."),
        Key(
            "signed-by",
            Text("a key", packages.signing_key, numeric=False),
            "The key that signs it: armoured text, or a file in the build context.",
            required=True,
        ),
        Key("architectures", _one_or_many(Text("an architecture")), "The architectures it is used for."),
    ),
    "a mapping with `uris`, `suites`, `signed-by`",
)
APT = OneOf(
    sequence=APT_PACKAGES,
    mapping=Table(
        (
            Key("packages", APT_PACKAGES, "Packages: `name`, `name=version`, `name/suite`, `name:arch`."),
            Key(
                "sources",
                Names(Text("a name", packages.distribution), APT_SOURCE, "a mapping of sources by name"),
                "More archives to take packages from, by name.",
            ),
            Key("recommends", Boolean(), "Install recommended packages too; `false` when not given."),
        )
    ),
)

PIP_PACKAGES = Listing(
    Text("a requirement", packages.pip_entry, numeric=False), "a list of requirements", packages.request_name
)
_PIP_SHARED = (
    Key("packages", PIP_PACKAGES, "PEP 508 requirements, or `-r FILE`.", examples=(["httpx>=0.27", "rich"],)),
    Key("extra-index-urls", Listing(URL, unique=str), "More indexes, asked before the first one."),
    Key("prereleases", Boolean(), "Whether pre-releases may be chosen."),
    Key(
        "build",
        Listing(Text("the name of a distribution", packages.distribution), unique=str),
        "Distributions that may be built from source, in a sandbox; all others come as wheels.",
    ),
)
_PIP_OWN = (
    Key(
        "index-url",
        URL,
        "The index to use in place of the settings'.",
        examples=("https://index.example/simple",),
    ),
    Key(
        "find-links",
        Listing(Text("a path or an address", packages.links, numeric=False), unique=str),
        "Places with wheels.",
    ),
    Key(
        "constraints",
        Listing(Text("a path", words.context_path), unique=str),
        "Constraints files in the build context.",
    ),
    Key(
        "exclude-newer",
        Text("a time", packages.newest),
        "Leave out what was published later.",
        examples=("2026-11-01",),
    ),
    Key("venv", DIRECTORY, "Install into a virtual environment here.", examples=("/opt/venv",)),
)
PIP = OneOf(sequence=PIP_PACKAGES, mapping=Table(_PIP_SHARED + _PIP_OWN))
RECIPE_PIP = OneOf(sequence=PIP_PACKAGES, mapping=Table(_PIP_SHARED))
