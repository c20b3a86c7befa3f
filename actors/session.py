"""One Ray session: a local cluster of this process, or a cluster that the user named."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from pydantic import Field

from actors.engine_env import num_cores
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import StageError

logger = logging.getLogger(__name__)


class RayConfig(FrozenConfig):
    """Which Ray cluster a run uses."""

    address: str | None = Field(
        None,
        description="'local' starts a cluster for this run alone; 'host:port' or 'ray://...' joins "
        "one; default: the cluster of RAY_ADDRESS (set by ray job submit), else local",
    )
    log_to_driver: bool = Field(default=False, description="Show the workers' own output")


@contextmanager
def ray_session(config: RayConfig, *, num_cpus: float) -> Iterator[None]:
    """Connect to Ray for the length of the block.

    Args:
        config: Where to.
        num_cpus: Ray CPUs that the run's actors reserve together. A local cluster offers at least
            as many, for the actors take turns; on a shared cluster they are waited for.

    Raises:
        StageError: If the named cluster does not answer.
    """
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    # Without this Ray sends usage statistics, and waits for a network that may not be there.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    is_local = address == "local"
    try:
        # An address is always given: without one, Ray joins whatever cluster left its address file.
        ray.init(
            address=address,
            num_cpus=max(num_cores(), int(num_cpus + 0.999)) if is_local else None,
            include_dashboard=False if is_local else None,
            log_to_driver=config.log_to_driver,
            # Its warnings are about settings of ours, like the token authentication it turns on.
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise StageError(f"Ray must answer at {address!r}, got {error}") from error
    _warn_if_too_small(num_cpus)
    try:
        yield
    finally:
        ray.shutdown()


def _warn_if_too_small(num_cpus: float) -> None:
    """Say what a run would wait for, perhaps for ever: a cluster may grow, so it is no error."""
    present = ray.cluster_resources().get("CPU", 0.0)
    if present < num_cpus:
        logger.warning(
            "the run's workers reserve %g CPUs and the cluster has %g: they wait until it grows; "
            "lower num_cpus of the workers (those of a synchronous run take turns), or start Ray "
            "with a larger --num-cpus",
            num_cpus,
            present,
        )
