"""Which node may start now: a pure state machine over what waits for what.

Nodes that lie on the longest remaining path come first. It starts nothing itself: a builder asks
`ready()`, says `start`, and reports `finish`, `fail` or `cancel`, until `done`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from sandboxfile.errors import PlanError
from sandboxfile.plan.edges import needs, nodes
from sandboxfile.plan.model import ActionKind, Reconciled

_WORK = frozenset({ActionKind.BUILD, ActionKind.FETCH, ActionKind.CHECK})


class State(StrEnum):
    """Where a node stands. The last four are final."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Schedule:
    """A queue of nodes.

    needs: for every node those it waits for
    costs: estimated seconds of each; 1 where not given
    done:  nodes with nothing to do, finished from the beginning

    Raises PlanError when nodes wait for each other, or for one that is not there.
    """

    def __init__(
        self,
        needs: Mapping[str, Sequence[str]],
        costs: Mapping[str, float] | None = None,
        *,
        done: Collection[str] = (),
    ) -> None:
        self._place = {name: index for index, name in enumerate(needs)}
        self._dependents: dict[str, list[str]] = {name: [] for name in needs}
        self._missing: dict[str, int] = {}
        for name, sources in needs.items():
            unique = dict.fromkeys(sources)
            for source in unique:
                if source not in self._dependents:
                    raise PlanError(f"{name} waits for {source}, which is not part of the plan")
                self._dependents[source].append(name)
            self._missing[name] = len(unique)
        self._priority = self._critical_path(costs or {})
        self._state = dict.fromkeys(needs, State.WAITING)
        self._ready: list[tuple[float, int, str]] = []
        self._open = len(self._state)
        finished = [name for name in needs if name in set(done)]
        for name in finished:
            self._settle(name, State.FINISHED)
        for name in finished:
            self._release(name)
        for name, missing in self._missing.items():
            if missing == 0 and self._state[name] is State.WAITING:
                self._make_ready(name)

    @property
    def done(self) -> bool:
        """Whether every node has come to its end."""
        return self._open == 0

    def state(self, node: str) -> State:
        """Where a node stands. KeyError."""
        return self._state[node]

    def ready(self) -> tuple[str, ...]:
        """Nodes that may start now, the most urgent first."""
        return tuple(name for _, _, name in self._ready)

    def running(self) -> tuple[str, ...]:
        """Nodes that were started and have not come to their end."""
        return tuple(name for name, state in self._state.items() if state is State.RUNNING)

    def start(self, node: str) -> None:
        """Take a ready node. ValueError when it is not ready."""
        self._expect(node, State.READY)
        self._ready.remove(self._entry(node))
        self._state[node] = State.RUNNING

    def finish(self, node: str) -> None:
        """A running node has done its work; what waited only for it becomes ready."""
        self._expect(node, State.RUNNING)
        self._settle(node, State.FINISHED)
        self._release(node)

    def fail(self, node: str) -> tuple[str, ...]:
        """A running node has failed; everything above it is skipped, and returned in order."""
        self._expect(node, State.RUNNING)
        self._settle(node, State.FAILED)
        return self._skip_above(node)

    def cancel(self, node: str) -> tuple[str, ...]:
        """A running node was stopped; everything above it is skipped, and returned in order."""
        self._expect(node, State.RUNNING)
        self._settle(node, State.CANCELLED)
        return self._skip_above(node)

    def stop(self) -> tuple[str, ...]:
        """Start nothing more: skip every node that is not running or at its end."""
        skipped = [n for n, state in self._state.items() if state in (State.WAITING, State.READY)]
        for name in skipped:
            self._settle(name, State.SKIPPED)
        self._ready.clear()
        return tuple(skipped)

    def _expect(self, node: str, state: State) -> None:
        if self._state[node] is not state:
            raise ValueError(f"{node} is {self._state[node]}, not {state}")

    def _settle(self, node: str, state: State) -> None:
        self._state[node] = state
        self._open -= 1

    def _release(self, node: str) -> None:
        for name in self._dependents[node]:
            self._missing[name] -= 1
            if self._missing[name] == 0 and self._state[name] is State.WAITING:
                self._make_ready(name)

    def _make_ready(self, node: str) -> None:
        self._state[node] = State.READY
        insort(self._ready, self._entry(node))

    def _entry(self, node: str) -> tuple[float, int, str]:
        return (-self._priority[node], self._place[node], node)

    def _skip_above(self, node: str) -> tuple[str, ...]:
        # Nothing above it can be ready or running: each of them waits, directly or not, for this node.
        skipped = []
        stack = [node]
        while stack:
            for name in self._dependents[stack.pop()]:
                if self._state[name] is State.WAITING:
                    self._settle(name, State.SKIPPED)
                    skipped.append(name)
                    stack.append(name)
        return tuple(sorted(skipped, key=self._place.__getitem__))

    def _critical_path(self, costs: Mapping[str, float]) -> dict[str, float]:
        """For each node the cost of the longest path that starts with it."""
        missing = dict(self._missing)
        order = [name for name, count in missing.items() if count == 0]
        for name in order:
            for above in self._dependents[name]:
                missing[above] -= 1
                if missing[above] == 0:
                    order.append(above)
        if len(order) < len(missing):
            stuck = [name for name, count in missing.items() if count > 0]
            raise PlanError(f"layers wait for each other: {', '.join(stuck)}")
        longest: dict[str, float] = {}
        for name in reversed(order):
            rest = max((longest[above] for above in self._dependents[name]), default=0.0)
            longest[name] = costs.get(name, 1.0) + rest
        return longest


def schedule_of(reconciled: Reconciled) -> Schedule:
    """The schedule of what is to be built, fetched and checked.

    What needs no work and stands on nothing that does is finished already. What needs no work but stands
    on a layer that is built anew is a node like any other, so that what is above it waits as well.
    """
    costs = {action.node: _cost(action.node, action.cost) for action in reconciled.actions}
    waits = needs(reconciled.plan)
    idle = {action.node for action in reconciled.actions if action.kind not in _WORK}
    done: set[str] = set()
    for name in nodes(reconciled.plan):
        if name in idle and all(below in done for below in waits[name]):
            done.add(name)
    return Schedule(waits, costs, done=done)


def _cost(node: str, size: int) -> float:
    """Seconds a node may take; rough, since it only decides what goes first."""
    kind = node.partition("-")[0].partition(":")[0]
    seconds = {"base": 15.0, "apt": 8.0, "run": 5.0, "pip": 3.0}.get(kind, 0.5)
    return size / 20_000_000 + (0.1 if kind == "fetch" else seconds)
