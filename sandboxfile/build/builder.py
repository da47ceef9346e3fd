"""The loop: walk the schedule, ask the engine, record what came of it, gate and publish.

One builder may run beside another on the same store. Work is shared by a lock for each layer: who comes
second waits, then finds the layer there. Nothing is published before every check has passed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field

from sandboxfile.build.checks import CheckResult, run_checks
from sandboxfile.build.failed import FailedStep
from sandboxfile.build.layers import Ingredients, LayerFailedError, build_layer, check_capabilities
from sandboxfile.build.runner import Log
from sandboxfile.core.digest import hexadecimal
from sandboxfile.core.event import Outcome, Reporter, TaskFinished, TaskStarted
from sandboxfile.core.layer import LayerKey
from sandboxfile.core.units import size_text
from sandboxfile.declared import dataclass
from sandboxfile.engine.base import Committed, Engine
from sandboxfile.errors import BuildError, SandboxfileError, StepFailed, VerifyFailed
from sandboxfile.plan.model import ActionKind, PlannedCheck, PlannedFetch, PlannedLayer, Reconciled
from sandboxfile.plan.schedule import schedule_of
from sandboxfile.store.failure import full_disk, store_error
from sandboxfile.store.records import layer_record
from sandboxfile.store.store import Store

Fetch = Callable[[PlannedFetch], Awaitable[None]]
"""Brings the files of a planned fetch into the store."""
Present = Callable[[Sequence[LayerKey]], Awaitable[frozenset[LayerKey]]]
"""Which layers are there."""


@dataclass
class Outcomes:
    """What a build has done so far."""

    built: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)


class Builder:
    """Builds plans with one engine and one store.

    on_failed: told about the failed step or check before the error is raised, so that `debug` can find it
    """

    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        reporter: Reporter,
        fetch: Fetch,
        present: Present,
        ingredients: Ingredients,
        on_failed: Callable[[FailedStep], None],
    ) -> None:
        self._engine = engine
        self._store = store
        self._reporter = reporter
        self._fetch = fetch
        self._present = present
        self._ingredients = ingredients
        self._on_failed = on_failed
        self._parallel = max(2, os.cpu_count() or 2)

    async def build_layers(self, reconciled: Reconciled, outcomes: Outcomes) -> None:
        """Build every layer the reconciliation says is to be built. Raises BuildError, FetchError, …"""
        plan = reconciled.plan
        layers = {layer.name: layer for layer in plan.layers}
        fetches = {fetch.name: fetch for fetch in plan.fetches}
        kinds = {action.node: action.kind for action in reconciled.actions}
        outcomes.reused += [name for name in layers if kinds[name] in (ActionKind.REUSE, ActionKind.PLACE)]
        todo = {name for name in (*layers, *fetches) if kinds[name] in (ActionKind.BUILD, ActionKind.FETCH)}
        check_capabilities([layer for layer in plan.layers if layer.name in todo], self._engine)
        schedule = schedule_of(reconciled)
        running: dict[asyncio.Task[None], str] = {}
        try:
            while not schedule.done:
                for name in schedule.ready():
                    if name not in todo:
                        # Present already, or a check: those run when all layers are there.
                        schedule.start(name)
                        schedule.finish(name)
                    elif len(running) < self._parallel:
                        schedule.start(name)
                        work = (
                            self._fetch(fetches[name])
                            if name in fetches
                            else self._build(layers[name], name in reconciled.forced, outcomes)
                        )
                        running[asyncio.create_task(_as_coroutine(work))] = name
                if not running:
                    continue
                finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    schedule.finish(running.pop(task))
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _build(self, layer: PlannedLayer, forced: bool, outcomes: Outcomes) -> None:
        task = f"layer:{layer.name}"
        self._reporter.emit(TaskStarted(task, layer.title))
        outcome, detail = Outcome.CANCELLED, ""
        wait = _Wait(self._reporter, task)
        try:
            async with self._store.locks.exclusive(f"layer-{hexadecimal(layer.key)}", on_wait=wait.begin):
                wait.end()
                if layer.key in await self._present([layer.key]) and not forced:
                    outcomes.reused.append(layer.name)
                    outcome, detail = Outcome.REUSED, "built by another process meanwhile"
                    return
                if forced:
                    self._store.index.forget_layers([layer.key])
                    await self._engine.remove([layer.key])
                committed = await self._build_logged(layer, task)
                self._record(layer, committed)
                outcomes.built.append(layer.name)
                outcome, detail = Outcome.DONE, f"{committed.entries} files, {size_text(committed.size)}"
        except LayerFailedError as error:
            outcome, detail = Outcome.FAILED, error.failed.error.message
            self._on_failed(error.failed)
            raise error.failed.error from None
        except SandboxfileError as error:
            outcome, detail = Outcome.FAILED, error.message
            raise
        finally:
            self._reporter.emit(TaskFinished(task, outcome, detail))

    async def _build_logged(self, layer: PlannedLayer, task: str) -> Committed:
        log = Log(
            self._store.log_path(layer.key), task, self._reporter, tuple(self._ingredients.secrets.values())
        )
        try:
            return await build_layer(
                layer, engine=self._engine, store=self._store, ingredients=self._ingredients, log=log
            )
        except OSError as error:
            raise store_error(error, f"building `{layer.name}`") from error
        except BuildError as error:
            if log.wants_space:
                raise full_disk(f"building `{layer.name}`", log.tail()) from error
            raise
        finally:
            log.close()

    def _record(self, layer: PlannedLayer, committed: Committed) -> None:
        definition = layer.definition
        assert definition is not None
        record = layer_record(
            definition,
            name=layer.name,
            diff_id=committed.diff_id,
            size=committed.size,
            entries=committed.entries,
            now=time.time(),
            unreproducible=committed.unreproducible,
        )
        self._store.index.record_layer(record)

    async def check(
        self, reconciled: Reconciled, outcomes: Outcomes, *, every: bool = False
    ) -> tuple[CheckResult, ...]:
        """Run the checks that are not remembered (or every one), and remember those that pass.

        Raises VerifyFailed with every failure.
        """
        plan = reconciled.plan
        passed = self._store.index.passed([check.key for check in plan.checks])
        todo: tuple[PlannedCheck, ...] = tuple(c for c in plan.checks if every or c.key not in passed)
        if not todo:
            return ()
        self._reporter.emit(TaskStarted("verify", f"verify ({len(todo)} of {len(plan.checks)} checks)"))
        outcome = Outcome.CANCELLED
        try:
            results = await run_checks(
                todo,
                engine=self._engine,
                stack=plan.stack,
                config=plan.config,
                reporter=self._reporter,
                logs=self._store.logs,
                parallel=self._parallel,
            )
            outcomes.checked += [result.check.name for result in results]
            for result in results:
                if result.failure is None:
                    self._store.index.remember_check(result.check.key, result.seconds)
            failed = tuple(result for result in results if result.failure is not None)
            outcome = Outcome.FAILED if failed else Outcome.DONE
        finally:
            self._reporter.emit(TaskFinished("verify", outcome))
        if failed:
            failures = tuple(r.failure for r in failed if r.failure is not None)
            self._on_failed(FailedStep(failures[0], failed[0].command, plan.stack, ""))
            raise _verify_failed(failures)
        return results


class _Wait:
    """The time in which another process has the lock of a layer, shown as a task of its own."""

    def __init__(self, reporter: Reporter, task: str) -> None:
        self._reporter = reporter
        self._parent = task
        self._task: str | None = None

    def begin(self, pid: int | None) -> None:
        """Called when the lock is held, with the holder's process id where it is known."""
        who = f"process {pid}" if pid else "another process"
        self._task = f"{self._parent}:wait"
        self._reporter.emit(TaskStarted(self._task, f"waiting: {who} is building this", self._parent))

    def end(self) -> None:
        """Called when the lock is gained."""
        if self._task is not None:
            self._reporter.emit(TaskFinished(self._task, Outcome.DONE))


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


def _verify_failed(failures: tuple[StepFailed, ...]) -> VerifyFailed:
    if len(failures) == 1:
        message = "a check failed, so nothing was published"
    else:
        message = f"{len(failures)} checks failed, so nothing was published"
    return VerifyFailed(message, failures, hint=failures[0].hint)
