"""Declarative environments: one file, one lock, a content-hashed layer graph, sandboxes that boot in
milliseconds.

The names below are the public interface. They are imported when first used, so that `import sandboxfile`
costs next to nothing; `__init__.pyi` says the same to type checkers.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "sandboxfile.api": ("BuildResult", "Client", "Project", "SnapshotInfo"),
    "sandboxfile.core.event": ("Event", "NullReporter", "Reporter"),
    "sandboxfile.engine.base": (
        "Capability",
        "Command",
        "Completed",
        "Engine",
        "Limits",
        "Process",
        "Sandbox",
        "Stdio",
        "Terminal",
    ),
    "sandboxfile.errors": (
        "BuildError",
        "EngineError",
        "FetchError",
        "IntegrityError",
        "Issue",
        "LockError",
        "LockStale",
        "NoSuchSnapshot",
        "PlanError",
        "SandboxfileError",
        "SpecError",
        "StepFailed",
        "StoreError",
        "UsageError",
        "VerifyFailed",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BuildError",
    "BuildResult",
    "Capability",
    "Client",
    "Command",
    "Completed",
    "Engine",
    "EngineError",
    "Event",
    "FetchError",
    "IntegrityError",
    "Issue",
    "Limits",
    "LockError",
    "LockStale",
    "NoSuchSnapshot",
    "NullReporter",
    "PlanError",
    "Process",
    "Project",
    "Reporter",
    "Sandbox",
    "SandboxfileError",
    "SnapshotInfo",
    "SpecError",
    "Stdio",
    "StepFailed",
    "StoreError",
    "Terminal",
    "UsageError",
    "VerifyFailed",
    "__version__",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'sandboxfile' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
