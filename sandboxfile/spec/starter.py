"""The text that `init` writes: a small environment that builds, with the rest of the format as comments."""

from __future__ import annotations

_TEXT = """\
# A Sandboxfile: what an environment is made of, and the checks that prove it.
#
#   sandboxfile build      build what changed, run the checks, print the snapshot's slug
#   sandboxfile run . -- python3 --version
#   sandboxfile plan       what a build would do, and why
#
name: @NAME@

# What everything is built on: a Debian suite by number or code name. Others: `snapshot:SLUG`, `scratch`.
base: debian:13

# Debian packages: `name`, `name=version`, `name/suite`.
apt: [python3]

# Python distributions (PEP 508), resolved and installed with uv; pinned with hashes in sandboxfile.lock.
# pip: [requests, "numpy>=2"]

# Environment of steps and sandboxes.
# env:
#   LANG: C.UTF-8
# workdir: /app
# user: root

# Files from beside this one, or inline.
files:
  - {to: /etc/motd, content: "Built from a Sandboxfile.\\n"}
#   - {from: app.py, to: /app/app.py}
#   - {from: scripts, to: /usr/local/bin/, mode: "0755"}

# Build steps, in order. A step has no network unless it says so.
# run:
#   - python3 -m compileall -q /app
#   - {run: ./fetch-data, network: true, timeout: 5m}

# Checks that the result must pass; each runs in a throw-away copy.
verify:
  - python3 --version
  - {run: cat /etc/motd, stdout: Sandboxfile, timeout: 30s}
#   - {http: /, timeout: 30s}      # asks the port of `start`

# The long-running command that `sandboxfile up` starts.
# start: {command: python3 /app/app.py, port: 8000, timeout: 30m}

# Limits and network of sandboxes booted from the result.
# resources: {memory: 512MB, cpus: 1, pids: 256, disk: 2GiB}
# network: none

# Parameters: `--param greeting=hi`, used as '{{ params.greeting }}' in any value.
# params:
#   greeting: {default: hello, help: what to say}

# Recipes to include: shipped ones by name, or a directory.
# use:
#   - python-dev
#   - {recipe: ./recipes/ours, params: {}}
"""


def starter(name: str) -> str:
    """A commented Sandboxfile for an environment of this name. It loads without an issue as it stands."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return _TEXT.replace("@NAME@", f'"{kept.lstrip("._-")[:63] or "env"}"' if _odd(kept) else kept[:63])


def _odd(name: str) -> bool:
    """Whether a name needs quotes or trimming to stand in YAML as text."""
    return not name[:1].isalpha() or len(name) > 63 or name.lower() == "null"
