"""Work for a layer that is done before its turn, where a processor would be idle."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set

from sandboxfile.build.bytecode import Bytecode, compilation
from sandboxfile.build.layers import Beside
from sandboxfile.build.runner import Log
from sandboxfile.core.event import Outcome, Reporter, TaskFinished, TaskStarted
from sandboxfile.core.layer import AptLayer, PipLayer
from sandboxfile.core.units import plural
from sandboxfile.engine.base import Workspace
from sandboxfile.errors import StepFailed
from sandboxfile.plan.model import Plan, PlannedLayer
from sandboxfile.store.store import Store


class Ahead:
    """What can be done for a layer before its turn: the wheels of the pip layer that stands on an apt layer
    are compiled while the packages of that are configured, which leaves a processor idle.

    todo:  names of all that is built and fetched
    tasks: those that have begun, by name
    """

    def __init__(
        self,
        plan: Plan,
        todo: Set[str],
        tasks: Mapping[str, asyncio.Task[None]],
        store: Store,
        reporter: Reporter,
    ) -> None:
        self.plan = plan
        self._todo = todo
        self._tasks = tasks
        self._store = store
        self._reporter = reporter

    def beside(self, layer: PlannedLayer) -> Beside | None:
        """What to do in the workspace of a layer as soon as its packages are unpacked."""
        if not isinstance(layer.definition, AptLayer):
            return None
        following = self.plan.layers[self.plan.layers.index(layer) + 1 :]
        above = next((each for each in following if isinstance(each.definition, (AptLayer, PipLayer))), None)
        found = compilation(self.plan, above) if above is not None and above.name in self._todo else None
        if found is None:
            return None

        async def work(workspace: Workspace, log: Log) -> None:
            await self._fetched(found.name)
            task = f"bytecode:{found.name}"
            self._reporter.emit(TaskStarted(task, f"compile {plural(len(found.layer.wheels), 'wheel')}"))
            outcome = Outcome.CANCELLED
            try:
                await Bytecode(self._store).compile(found, workspace, log)
                outcome = Outcome.DONE
            except StepFailed as error:
                # The layer itself tries again, with everything configured, and is told what is wrong.
                log.note(error.message)
                outcome = Outcome.REUSED
            finally:
                self._reporter.emit(TaskFinished(task, outcome))

        return work

    async def _fetched(self, layer: str) -> None:
        """Wait until the files of a layer are there, if somebody brings them."""
        waiting = [
            self._tasks[f.name] for f in self.plan.fetches if f.layer == layer and f.name in self._tasks
        ]
        if waiting:
            await asyncio.wait(waiting)
