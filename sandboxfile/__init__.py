"""Declarative environments: one file, one lock, a content-hashed layer graph, sandboxes that boot in
milliseconds.

The names below are the public interface. They are imported when first used, so that `import sandboxfile`
costs next to nothing; `__init__.pyi` says the same to type checkers.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "sandboxfile.api": ("AsyncClient", "BuildResult", "Project", "SnapshotInfo"),
    "sandboxfile.blocking": ("Client", "Files", "Process", "Sandbox"),
    "sandboxfile.core.event": ("Event", "NullReporter", "Reporter"),
    "sandboxfile.engine.base": (
        "Capability",
        "Command",
        "Completed",
        "Engine",
        "Limits",
        "Stdio",
        "Terminal",
    ),
    "sandboxfile.engine.files": ("DirectoryEntry", "FileInfo", "FileKind", "SandboxFiles"),
    "sandboxfile.errors": (
        "BuildError",
        "CacheMiss",
        "CommandFailed",
        "EngineError",
        "FetchError",
        "FileRefused",
        "FileTooLarge",
        "HostError",
        "IntegrityError",
        "Issue",
        "LimitNotEnforceable",
        "LockError",
        "LockStale",
        "MissingCapability",
        "NoSuchSandbox",
        "NoSuchSnapshot",
        "NoSuchVolume",
        "PlanError",
        "SandboxElsewhere",
        "SandboxError",
        "SandboxGone",
        "SandboxfileError",
        "SlugTaken",
        "SpecError",
        "StepFailed",
        "StoreError",
        "UsageError",
        "VerifyFailed",
        "VolumeError",
        "VolumeInUse",
    ),
    "sandboxfile.sdk.process": ("AsyncProcess", "CommandOutput", "Status"),
    "sandboxfile.store.sandboxes": ("SandboxInfo",),
    "sandboxfile.sdk.sandbox": ("AsyncSandbox",),
    "sandboxfile.sdk.volumes": ("VolumeInfo",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncProcess",
    "AsyncSandbox",
    "BuildError",
    "BuildResult",
    "CacheMiss",
    "Capability",
    "Client",
    "Command",
    "CommandFailed",
    "CommandOutput",
    "Completed",
    "DirectoryEntry",
    "Engine",
    "EngineError",
    "Event",
    "FetchError",
    "FileInfo",
    "FileKind",
    "FileRefused",
    "FileTooLarge",
    "Files",
    "HostError",
    "IntegrityError",
    "Issue",
    "LimitNotEnforceable",
    "Limits",
    "LockError",
    "LockStale",
    "MissingCapability",
    "NoSuchSandbox",
    "NoSuchSnapshot",
    "NoSuchVolume",
    "NullReporter",
    "PlanError",
    "Process",
    "Project",
    "Reporter",
    "Sandbox",
    "SandboxElsewhere",
    "SandboxError",
    "SandboxFiles",
    "SandboxGone",
    "SandboxInfo",
    "SandboxfileError",
    "SlugTaken",
    "SnapshotInfo",
    "SpecError",
    "Status",
    "Stdio",
    "StepFailed",
    "StoreError",
    "Terminal",
    "UsageError",
    "VerifyFailed",
    "VolumeError",
    "VolumeInUse",
    "VolumeInfo",
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
