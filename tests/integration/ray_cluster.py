"""A Ray cluster of one machine with token authentication on, and jobs submitted to it."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import PROJECT

RAY = Path(sys.executable).with_name("ray")
STORE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Cluster:
    """Where jobs go, and the environment that lets them in."""

    address: str
    env: dict[str, str]

    def submit(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Run `python -m c2s_rl WORDS` as a job, as cluster/README.md shows; returns its output."""
        done = self.try_to_submit(*words, env=env)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def try_to_submit(
        self, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [str(RAY), "job", "submit", "--address", self.address, "--working-dir", "."]
        return subprocess.run(
            [*command, "--", "python", "-m", "c2s_rl", *words],
            cwd=PROJECT,
            env=env or self.env,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )


@contextlib.contextmanager
def cluster_with_token(folder: Path) -> Iterator[Cluster]:
    """Start a head node on the loopback address, and end the processes it started."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    env = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # the job's `python` is the one that `ray start` finds
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    port, dashboard_port = _free_port(), _free_port()
    options = {
        "--port": str(port),
        "--dashboard-port": str(dashboard_port),
        "--node-ip-address": "127.0.0.1",
        # two cores; actors of a run that take turns reserve one each
        "--num-cpus": "8",
        "--object-store-memory": str(STORE_BYTES),
        "--min-worker-port": "0",
        "--max-worker-port": "0",
        # a socket's path must be short
        "--temp-dir": f"/tmp/c2s-{os.getpid()}",
    }
    words = [word for pair in options.items() for word in pair]
    with (folder / "head.log").open("w") as log:
        head = psutil.Popen(
            [str(RAY), "start", "--head", "--block", *words],
            env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{dashboard_port}"
            _wait_for(address, head, folder / "head.log")
            yield Cluster(address, env)
        finally:
            for process in [head, *head.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(address: str, head: psutil.Popen, log: Path) -> None:
    """Wait until the job server answers, which refuses whoever brings no token."""
    deadline = time.monotonic() + 90
    while (status := _status(f"{address}/api/version")) is None:
        assert head.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    assert status == 401


def _status(url: str) -> int | None:
    """Status of a GET request; None where nobody listens yet."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
