"""The errors that a user can cause or must decide about.

Every one carries a single message of the form "<rule>, got <value>" plus the place, so that it
survives pickling between Ray processes unchanged and the CLI can print it as one line.
"""


class C2SError(Exception):
    """Base of all errors that are shown to the user as one line, without a traceback."""


class ConfigError(C2SError, ValueError):
    """A configuration value breaks a rule; names the key, the value and the choices."""


class DataError(C2SError, ValueError):
    """An input file or a record in it breaks a rule; names the file and the place."""


class UnknownColumnError(DataError):
    """A file lacks a label of cells that was asked for; names the nearest."""


class MissingFileError(C2SError, FileNotFoundError):
    """A file or folder that the user named, or that an earlier stage makes, is not there."""


class StageError(C2SError, RuntimeError):
    """A stage cannot start or go on from what its folder holds."""


class CheckpointError(C2SError, RuntimeError):
    """A checkpoint is incomplete, altered or belongs to another run."""


class RewardError(C2SError, RuntimeError):
    """A reward plug-in failed: exception, not-a-number, wrong length or time-out."""


class BudgetError(C2SError, RuntimeError):
    """A counted allowance (failed rewards, dropped groups) is spent, so the run stops."""


class WeightSyncError(C2SError, RuntimeError):
    """Rollout worker and learner do not hold the same weights after a transfer."""


class PlanError(C2SError, ValueError):
    """A run cannot fit its model or its cluster; names the part that does not."""


class DeadlineError(C2SError, TimeoutError):
    """A wait for another process took longer than allowed; names the peer."""
