"""What `scripts/check-reproducible` does: see there."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "dev" / "reproducibility.md"
HEAD = """\
# Reproducibility

Every example and every recipe, built twice in two stores by `scripts/check-reproducible`, which wrote this
page; the layers are compared byte by byte (`sandboxfile verify --rebuild`). *Declared* is what no rule can
make equal and the layer is marked with. That another user, path, umask, clock and locale change nothing is
held by `tests/e2e/test_same_bytes.py`.

"""


def projects() -> dict[str, str]:
    """The directory of every example, and a Sandboxfile for every recipe, by name."""
    found = {}
    for directory in sorted((ROOT / "examples").iterdir()):
        if any((directory / name).exists() for name in ("Sandboxfile", "pyproject.toml")):
            found[directory.name] = str(directory)
    for directory in sorted((ROOT / "recipes").iterdir()):
        found[f"recipes/{directory.name}"] = f"name: recipe\nbase: debian:13\nuse: [{directory.name}]\n"
    return found


def sandboxfile(directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a directory."""
    program = Path(sys.executable).parent / "sandboxfile"
    return subprocess.run([program, "-C", directory, *args], stdout=subprocess.PIPE, text=True, check=False)


def rebuilt(where: str, scratch: Path) -> dict[str, Any]:
    """Build a project and build it again; the document of `verify --rebuild`."""
    directory = Path(where)
    if "\n" in where:
        directory = scratch
        (scratch / "Sandboxfile").write_text(where)
    built = sandboxfile(directory, "-q", "build")
    if built.returncode:
        return {"error": "it cannot be built"}
    result: dict[str, Any] = json.loads(sandboxfile(directory, "-q", "--json", "verify", "--rebuild").stdout)
    return result | {"slug": built.stdout.split()[-1]}


def row(name: str, result: dict[str, Any]) -> tuple[str, bool]:
    """A row of the table, and whether all is well."""
    if "error" in result:
        return f"| {name} | - | - | {result['error']} |", False
    layers = result["layers"]
    equal = sum(layer["equal"] for layer in layers)
    wrong = [layer for layer in layers if not layer["equal"] and not layer["declared"]]
    declared = [layer["layer"] for layer in layers if layer["declared"]]
    words = ["all equal"] if equal == len(layers) else []
    words += [f"{name} differs as declared" for name in declared]
    for layer in wrong:
        paths = ", ".join(f"`{each['path']}` ({each['step']})" for each in layer["differences"][:5])
        words.append(f"**{layer['layer']} differs**: {paths}")
    return f"| {name} | `{result['slug']}` | {equal} of {len(layers)} | {'; '.join(words)} |", not wrong


def main(names: list[str]) -> int:
    """Check the named projects, or all of them."""
    known = projects()
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    lines = ["| project | snapshot | equal layers | |", "|---|---|---:|---|"]
    well = True
    for name in names or known:
        print(f"{name} …", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            line, good = row(name, rebuilt(known[name], Path(scratch)))
        lines.append(line)
        well = well and good
    table = "\n".join(lines) + "\n"
    if names:
        print(table, end="")
    else:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        RESULTS.write_text(f"{HEAD}{day}, Linux {platform.release()}, {platform.machine()}:\n\n{table}")
        print(f"wrote {RESULTS.relative_to(ROOT)}", file=sys.stderr)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
