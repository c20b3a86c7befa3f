"""A plug-in in a process of its own, seen from the reward worker that started it.

A process that failed (too late, too large, dead) is replaced at once; the new one loads the plug-in
while nobody waits, and is waited for by the next call.
"""

import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path

from actors.reward_messages import NotReady, PluginSetup, ScoreCall, ScoreReply
from actors.reward_watch import Family, ProcessWatch
from c2s_rl.errors import ConfigError, StageError
from rewards.base import FailureKind, RewardFailure
from rewards.pool_config import RewardPoolConfig

logger = logging.getLogger(__name__)

GIB = 2**30
# Between closing its pipe and its end a process that exits by itself needs no longer.
EXIT_S = 1.0


@dataclass(frozen=True, eq=False)
class Answer:
    """What one call of a plug-in's process came to."""

    reply: ScoreReply | RewardFailure
    """Scores, or why there are none."""
    seconds: float
    """Time of the call alone."""


class PluginProcess:
    """Starts, calls, ends and replaces the process; used from one thread at a time."""

    def __init__(self, setup: PluginSetup, config: RewardPoolConfig) -> None:
        """Start the process; `ready` waits for it."""
        self._setup = setup
        self._name = setup.spec.key
        self._config = config
        # The kernel ends the process with the *thread* that started it: this one lives as long as
        # the worker does, those that Ray runs methods on need not.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="reward-starter")
        self.num_starts = 0
        self._is_closed = False
        self._start()

    @property
    def pid(self) -> int:
        """Of the process as it is now."""
        return self._process.pid

    def ready(self) -> RewardFailure | None:
        """Wait until the plug-in is loaded.

        Returns:
            Why the process did not get there; it is replaced then.

        Raises:
            ConfigError: If the plug-in cannot be built.
        """
        if self._is_ready and not self._family.is_alive:
            self._replace()  # died or was ended between two calls
        if self._is_ready:
            return None
        answer = self._exchange(self._setup, self._config.start_deadline_s)
        if isinstance(answer, NotReady):
            self._replace()
            raise ConfigError(answer.message)
        if isinstance(answer, RewardFailure):
            return RewardFailure(answer.kind, f"{answer.message} while loading its plug-in")
        self._is_ready = True
        return None

    def call(self, call: ScoreCall, *, deadline_s: float) -> Answer:
        """Have completions scored by a process that is ready."""
        began = time.monotonic()
        reply = self._exchange(call, deadline_s)
        if not isinstance(reply, ScoreReply | RewardFailure):
            raise StageError(f"a plug-in's process must answer with scores, got {type(reply)}")
        seconds = time.monotonic() - began
        num_bytes = self._family.memory_bytes() if self._is_ready else 0
        if num_bytes > self._config.memory_gib * GIB:
            logger.warning(
                "reward %r keeps %.2f GiB after a call; its process starts afresh",
                self._name,
                num_bytes / GIB,
            )
            self._replace()
        return Answer(reply, seconds)

    def close(self) -> None:
        """End the process and whatever it started; from any thread, beside a call."""
        self._is_closed = True
        self._family.end()
        self._starter.shutdown()

    def _exchange(self, message: object, deadline_s: float) -> object:
        """Send a message and wait for the answer; a process that gives none is replaced."""
        answer: object = None
        max_bytes = self._config.memory_gib * GIB
        with ProcessWatch(
            self._family, self._name, deadline_s=deadline_s, max_bytes=max_bytes
        ) as watch:
            try:
                self._pipe.send(message)
                answer = self._pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                self._family.wait_end(EXIT_S)
                self._family.end()
        if answer is None or watch.verdict is not None:
            failure = watch.verdict or RewardFailure(FailureKind.CRASHED, self._death())
            self._replace()
            # an answer that came as the process was being ended is an answer
            return failure if answer is None else answer
        return answer

    def _death(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            how = f"its death by {signal.Signals(-code).name}"
            how += " (often the system out of memory)" if code == -signal.SIGKILL else ""
        else:
            how = f"its end with exit code {code}"
        return f"a reward's process must stay alive, got {how} in reward {self._name!r}"

    def _replace(self) -> None:
        """Start another process.

        Raises:
            StageError: If this was closed meanwhile.
        """
        self._family.end()
        if self._is_closed:
            raise StageError(f"the worker of reward {self._name!r} must be open, got closed")
        self._pipe.close()
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", "actors.reward_child", str(theirs.fileno())]
        paths = [str(Path(path or ".").absolute()) for path in sys.path]
        try:
            self._process = self._starter.submit(
                subprocess.Popen,
                [*command, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                # what a plug-in prints goes where the worker's own output goes
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,
            ).result()
        finally:
            theirs.close()
        self._family = Family(self._process)
        self._is_ready = False
        self.num_starts += 1
