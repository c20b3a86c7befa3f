"""The process of a reward plug-in: loads it, and scores what it is sent until the pipe closes.

Started by `reward_process.py` as `python -m actors.reward_child <file descriptor> <parent's id>`.
It talks through a pipe of its own, so a plug-in may print. Plug-in code may hang, leak or crash
here; whoever started the process watches it. Ray is not imported: the process stays small and
starts quickly.
"""

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection

from actors.reward_messages import Cut, NotReady, PluginSetup, Ready, ScoreCall, ScoreReply
from c2s_rl.errors import C2SError
from c2s_rl.models.encoding_cache import PROCESS_COUNTS
from c2s_rl.types import Group
from rewards.base import RewardBatch
from rewards.checking import score_checked, shorten
from rewards.composite import build_reward

PR_SET_PDEATHSIG = 1


class PluginServer:
    """A loaded plug-in and the groups it was sent last."""

    def __init__(self, setup: PluginSetup) -> None:
        """Load the plug-in.

        Raises:
            C2SError: If the name or an option is wrong; a plug-in may raise anything else.
        """
        self._reward = build_reward(setup.spec)
        self._setup = setup
        self._groups: list[Group] = []

    def score(self, call: ScoreCall) -> ScoreReply:
        """Score what a call asks for."""
        if call.groups is not None:
            self._groups = [pickle.loads(group) for group in call.groups]
        batch = RewardBatch(
            tuple(cut_group(self._groups[cut.group], cut) for cut in call.cuts),
            self._setup.vocabulary,
            self._setup.material,
        )
        before = replace(PROCESS_COUNTS)
        result = score_checked(self._reward, batch, self._setup.spec.key)
        return ScoreReply(
            result,
            PROCESS_COUNTS.num_hits - before.num_hits,
            PROCESS_COUNTS.num_misses - before.num_misses,
        )


def cut_group(group: Group, cut: Cut) -> Group:
    """Keep some completions of a group; the group itself where all of them stay."""
    if len(cut.completions) == len(group.completions_G):
        return group
    return replace(
        group,
        completions_G=tuple(group.completions_G[i] for i in cut.completions),
        cells_G=tuple(group.cells_G[i] for i in cut.completions),
    )


def serve(pipe: Connection) -> None:
    """Load the plug-in that the first message names, then answer calls until the pipe closes."""
    setup: PluginSetup = pipe.recv()
    try:
        server = PluginServer(setup)
    except C2SError as error:
        pipe.send(NotReady(str(error)))
        return
    except Exception as error:  # noqa: BLE001 whatever a plug-in raises
        pipe.send(
            NotReady(
                f"a reward must not raise when it is built, got {type(error).__name__}: "
                f"{shorten(str(error))} in reward {setup.spec.key!r}"
            )
        )
        return
    pipe.send(Ready())
    while True:
        try:
            call: ScoreCall = pipe.recv()
        except EOFError:
            return
        pipe.send(server.score(call))


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent does: a hung plug-in cannot see that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(1)


def main(arguments: Sequence[str]) -> None:
    """Run the process."""
    descriptor, parent = map(int, arguments)
    die_with(parent)
    # programs that a plug-in starts must not hold the pipe open
    os.set_inheritable(descriptor, False)  # noqa: FBT003 takes no keyword
    with Connection(descriptor) as pipe:
        serve(pipe)


if __name__ == "__main__":
    main(sys.argv[1:])
