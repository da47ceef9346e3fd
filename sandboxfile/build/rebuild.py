"""The same layers built twice, compared: which are equal to the byte, and what differs where they are not."""

from __future__ import annotations

import asyncio
import csv
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxfile.build.workshop import Parts
from sandboxfile.core.digest import Digest
from sandboxfile.core.layer import AptLayer, DebianBase, Definition, LayerKey, PipLayer, RunLayer
from sandboxfile.core.manifest import Change, Difference, Entry, differences
from sandboxfile.engine.base import Capability, Engine, Stack
from sandboxfile.errors import MissingCapability
from sandboxfile.plan.model import Plan, PlannedLayer
from sandboxfile.plan.wording import one_line

_INFO = "var/lib/dpkg/info/"
_SHOWN_BY_DIFFOSCOPE = 5
_DIFFOSCOPE_LINES = 40
_DIFFOSCOPE_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One path that differs between two builds of a layer.

    step:     what probably wrote it, for people: a package, a command
    declared: whether a rule names it as one that no rule can make equal
    report:   diffoscope's words on the two contents, where it is installed
    """

    difference: Difference
    step: str
    declared: bool
    report: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerRebuilt:
    """A layer and its second build. `first` and `second` are the digests of their content."""

    layer: str
    title: str
    key: LayerKey
    first: Digest | None
    second: Digest | None
    findings: tuple[Finding, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both have the same bytes."""
        return self.first is not None and self.first == self.second

    @property
    def declared(self) -> bool:
        """Whether all that differs is what no rule can make equal."""
        return bool(self.findings) and all(finding.declared for finding in self.findings)


async def compare(plan: Plan, first: Parts, second: Parts) -> tuple[LayerRebuilt, ...]:
    """Compare each layer of a plan that two stores hold. Raises MissingCapability."""
    for engine in (first.engine, second.engine):
        if Capability.DIFF_ID not in engine.capabilities:
            raise MissingCapability(
                f"the {engine.name} engine cannot compare two builds", Capability.DIFF_ID.value
            )
    found = []
    for number, layer in enumerate(plan.layers):
        records = [parts.store.index.layer(layer.key) for parts in (first, second)]
        digests = [record.diff_id if record else None for record in records]
        findings: tuple[Finding, ...] = ()
        if digests[0] is None or digests[0] != digests[1]:
            declared = {path for record in records if record for path in record.unreproducible}
            stack = plan.stack[: number + 1]
            findings = await _findings(layer, stack, first.engine, second.engine, declared)
        found.append(LayerRebuilt(layer.name, layer.title, layer.key, digests[0], digests[1], findings))
    return tuple(found)


async def _findings(
    layer: PlannedLayer, stack: Stack, first: Engine, second: Engine, declared: set[str]
) -> tuple[Finding, ...]:
    (before,) = await first.manifests(stack, start=len(stack) - 1)
    (after,) = await second.manifests(stack, start=len(stack) - 1)
    different = differences(before, after)
    step_of = await _steps(layer.definition, stack, first, before)
    reports = await _reports(different, stack, first, second)
    return tuple(
        Finding(each, step_of(each.path), f"/{each.path}" in declared, reports.get(each.path, ()))
        for each in different
    )


async def _steps(
    definition: Definition | None, stack: Stack, engine: Engine, entries: Sequence[Entry]
) -> Callable[[str], str]:
    """Says of a path of a layer what probably wrote it."""
    owners: dict[str, str] = {}
    if isinstance(definition, RunLayer):
        step = f"step `{one_line(definition.command)}`"
        return lambda _: step
    if isinstance(definition, (AptLayer, DebianBase)):
        owners = await _packages(stack, engine, entries)
        return lambda path: owners.get(path, "a maintainer script or trigger")
    if isinstance(definition, PipLayer):
        owners = await _distributions(stack, engine, entries)
        return lambda path: owners.get(path, "the installer")
    return lambda path: f"file /{path}"


async def _packages(stack: Stack, engine: Engine, entries: Sequence[Entry]) -> dict[str, str]:
    lists = [e.path for e in entries if e.path.startswith(_INFO) and e.path.endswith(".list")]
    owners: dict[str, str] = {}
    for path, content in (await _read(engine, stack, lists)).items():
        name = path.removeprefix(_INFO).removesuffix(".list").partition(":")[0]
        for line in content.decode("utf-8", "surrogateescape").splitlines():
            owners[line.lstrip("/")] = f"package {name}"
    return owners


async def _distributions(stack: Stack, engine: Engine, entries: Sequence[Entry]) -> dict[str, str]:
    records = [e.path for e in entries if e.path.endswith(".dist-info/RECORD")]
    owners: dict[str, str] = {}
    for path, content in (await _read(engine, stack, records)).items():
        directory, _, info = path.removesuffix("/RECORD").rpartition("/")
        name = info.removesuffix(".dist-info").partition("-")[0]
        for row in csv.reader(content.decode("utf-8", "replace").splitlines()):
            if row:
                owners[f"{directory}/{row[0]}"] = f"distribution {name}"
    for entry in entries:
        source, marker, module = entry.path.partition("/__pycache__/")
        if marker:
            owner = owners.get(f"{source}/{module.partition('.')[0]}.py", "")
            owners[entry.path] = f"byte compilation of {owner}" if owner else "byte compilation"
    return owners


async def _read(engine: Engine, stack: Stack, paths: Sequence[str]) -> dict[str, bytes]:
    """The content of some files of a stack."""
    workspace = await engine.prepare(stack)
    try:
        return {path: await workspace.read(f"/{path}") for path in paths}
    finally:
        await workspace.abort()


async def _reports(
    different: Sequence[Difference], stack: Stack, first: Engine, second: Engine
) -> Mapping[str, tuple[str, ...]]:
    """What diffoscope says of the first few contents that differ; nothing where it is not installed."""
    program = shutil.which("diffoscope")
    paths = [each.path for each in different if Change.CONTENT in each.changes][:_SHOWN_BY_DIFFOSCOPE]
    if program is None or not paths:
        return {}
    contents = [await _read(engine, stack, paths) for engine in (first, second)]
    found = {}
    with tempfile.TemporaryDirectory(prefix="sandboxfile-") as scratch:
        for path in paths:
            files = []
            for name, content in zip(("first", "second"), contents, strict=True):
                file = Path(scratch) / name / Path(path).name
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content[path])
                files.append(str(file))
            found[path] = await _diffoscope(program, files)
    return found


async def _diffoscope(program: str, files: Sequence[str]) -> tuple[str, ...]:
    process = await asyncio.create_subprocess_exec(
        program,
        *("--no-progress", "--text-color=never", "--text", "-"),
        *files,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _DIFFOSCOPE_SECONDS)
    except TimeoutError:
        return ("diffoscope took too long",)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return tuple(output.decode("utf-8", "replace").splitlines()[:_DIFFOSCOPE_LINES])
