"""The public interface, for type checkers: what `__init__.py` imports when it is first used."""

from sandboxfile.api import (
    BuildResult as BuildResult,
)
from sandboxfile.api import (
    Client as Client,
)
from sandboxfile.api import (
    Project as Project,
)
from sandboxfile.api import (
    SnapshotInfo as SnapshotInfo,
)
from sandboxfile.core.event import (
    Event as Event,
)
from sandboxfile.core.event import (
    NullReporter as NullReporter,
)
from sandboxfile.core.event import (
    Reporter as Reporter,
)
from sandboxfile.engine.base import (
    Capability as Capability,
)
from sandboxfile.engine.base import (
    Command as Command,
)
from sandboxfile.engine.base import (
    Completed as Completed,
)
from sandboxfile.engine.base import (
    Engine as Engine,
)
from sandboxfile.engine.base import (
    Limits as Limits,
)
from sandboxfile.engine.base import (
    Process as Process,
)
from sandboxfile.engine.base import (
    Sandbox as Sandbox,
)
from sandboxfile.engine.base import (
    Stdio as Stdio,
)
from sandboxfile.engine.base import (
    Terminal as Terminal,
)
from sandboxfile.errors import (
    BuildError as BuildError,
)
from sandboxfile.errors import (
    EngineError as EngineError,
)
from sandboxfile.errors import (
    FetchError as FetchError,
)
from sandboxfile.errors import (
    IntegrityError as IntegrityError,
)
from sandboxfile.errors import (
    Issue as Issue,
)
from sandboxfile.errors import (
    LockError as LockError,
)
from sandboxfile.errors import (
    LockStale as LockStale,
)
from sandboxfile.errors import (
    NoSuchSnapshot as NoSuchSnapshot,
)
from sandboxfile.errors import (
    PlanError as PlanError,
)
from sandboxfile.errors import (
    SandboxfileError as SandboxfileError,
)
from sandboxfile.errors import (
    SpecError as SpecError,
)
from sandboxfile.errors import (
    StepFailed as StepFailed,
)
from sandboxfile.errors import (
    StoreError as StoreError,
)
from sandboxfile.errors import (
    UsageError as UsageError,
)
from sandboxfile.errors import (
    VerifyFailed as VerifyFailed,
)

__version__: str
