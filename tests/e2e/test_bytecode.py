"""Byte code of Python distributions: all of it is there, it is what the interpreter makes, and it is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Program

pytestmark = [pytest.mark.host, pytest.mark.network]

LOOK = """\
import importlib.util, os, py_compile, sys, tempfile
modules = missing = other = 0
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(directory, name)
        if not name.endswith(".py"):
            continue
        modules += 1
        compiled = importlib.util.cache_from_source(path)
        if not os.path.exists(compiled):
            missing += 1
            continue
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        fresh = os.path.join(tempfile.mkdtemp(), "fresh")
        py_compile.compile(path, fresh, path, doraise=True, invalidation_mode=mode)
        other += open(fresh, "rb").read() != open(compiled, "rb").read()
print(modules > 20, missing, other)
"""
# The name of the second one's wheel is long: longer than old tar headers can hold.
PACKAGES = "apt: [python3]\npip: [idna, charset-normalizer]\n"


@pytest.mark.parametrize("place", ["system", "venv"])
def test_every_module_has_the_byte_code_that_the_interpreter_makes(
    based: Callable[[str], Program], place: str
) -> None:
    packages = PACKAGES if place == "system" else (
        "apt: [python3, python3-venv]\npip: {venv: /opt/v, packages: [idna, charset-normalizer]}\n"
    )  # fmt: skip
    program = based(packages)
    program("build")
    site = "/usr/local/lib/python3.13/dist-packages"
    if place == "venv":
        site = "/opt/v/lib/python3.13/site-packages"
    ran = program("run", "--", "python3", "-I", "-", site, stdin=LOOK)
    assert ran.stdout == "True 0 0\n"


def test_a_wheel_is_compiled_once(based: Callable[[str], Program]) -> None:
    program = based(PACKAGES)
    program("build")
    again = program("build", "--force", "pip-1", "--progress=json")
    assert "pip-1" in [task.removeprefix("layer:") for task in again.tasks()]
    assert "compile.py" not in program("explain", "pip-1", "--log").stdout
