"""Runs of the real stack on real cells, small enough for two cores."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

TINY = """\
name: {name}
runs_dir: {runs}
seed: 3
convert: {{scanpy_dataset: pbmc68k_reduced, matrix: raw, values: log1p, obs: [bulk_labels]}}
corpus:
  tasks: [cell_generation]
  cell_type_column: bulk_labels
  num_genes: 20
  reward_target: pseudobulk
  split: {{test_fraction: 0.25}}
base_model:
  gpt_neox:
    {{hidden_size: 64, num_layers: 2, num_heads: 2, vocabulary_size: 2600, max_position: 96}}
align:
  task: cell_generation
  num_steps: 4
  prompts_per_step: 3
  save_every: 1
  sampling: {{group_size: 3, max_tokens: 30}}
  loss: {{beta: 0.01}}
rewards:
  - {{name: kendall, options: {{program: hallmark_interferon_alpha_response}}}}
  - {{name: validity, options: {{num_genes: 20}}}}
# 256 tokens: several passes a step, so that learning starts while groups are still sampled
learner: {{lr: 1.0e-3, micro_batch_tokens: 256}}
evaluate:
  program: hallmark_interferon_alpha_response
  num_prompts: 6
  samples_per_prompt: 2
  report: {{umap_cells: 0}}
  baseline: Base
"""


class Runs:
    """Starts `c2s-rl` commands on one tiny run config."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def config(self, name: str) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(TINY.format(name=name, runs=self.folder))
        return path

    def start(self, command: str, name: str, *options: str) -> subprocess.Popen[str]:
        """Start a command as the leader of a process group of its own."""
        arguments = [sys.executable, "-m", "c2s_rl", "-v", *command.split()]
        return subprocess.Popen(
            [*arguments, "--config", str(self.config(name)), *options],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str, name: str, *options: str, code: int = 0) -> str:
        """Run a command to its end and return what it printed."""
        process = self.start(command, name, *options)
        output, _ = process.communicate(timeout=420)
        assert process.returncode == code, output
        return output

    def kill_after(self, command: str, name: str, proof: Path, *options: str) -> None:
        """Start a command and kill its driver without warning once `proof` exists."""
        process = self.start(command, name, *options)
        deadline = time.monotonic() + 300
        while not proof.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"no {proof} after 300 s"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def prepared(runs: Runs) -> Path:
    """A run folder with cells, corpus and base model, to be copied."""
    for stage in ("convert", "corpus", "base-model"):
        runs.run(stage, "prepared")
    return runs.folder / "prepared"
