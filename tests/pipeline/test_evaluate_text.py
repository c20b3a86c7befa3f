"""The stage from questions about cells on disk to text_evaluation.json and text_report.html."""

import json
from collections.abc import Mapping
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from c2s_rl.config import validate
from c2s_rl.data.prompt_set import PromptSet, read_manifest, read_prompts
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.report import RunInfo
from c2s_rl.evaluation.result import Outcome
from c2s_rl.evaluation.text_metrics import TextMetric
from c2s_rl.evaluation.text_result import TextEvaluation
from c2s_rl.models.text_encoder import TextEncoderConfig
from c2s_rl.pipeline import convert, corpus
from c2s_rl.pipeline.evaluate_text import EvaluateTextConfig, run, select_text_prompts
from c2s_rl.types import Completion, Group, ParsedCell, Split, Task
from tests.text_encoders import write_bert

RUN = RunInfo("toy", "Toy cells.", 0, "2026-01-31", {}, "name: toy")
ANSWERS = {"B": "b cells of blood", "T": "t cells kill tumour cells"}
NO_CELL = ParsedCell(np.zeros(0, dtype=np.int32), 0, 0, (), is_truncated=False)


@pytest.fixture(scope="module")
def prompt_set(tmp_path_factory: pytest.TempPathFactory) -> PromptSet:
    """24 cells of two types; three wordings of one question about each, one wording held out."""
    folder = tmp_path_factory.mktemp("toy")
    counts = np.random.default_rng(0).poisson(3, (24, 8)).astype(np.float32)
    adata = anndata.AnnData(
        counts,
        obs=pd.DataFrame({"cell_type": ["B", "T"] * 12}, index=[f"c{i}" for i in range(24)]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(8)]),
    )
    adata.write_h5ad(folder / "toy.h5ad")
    config = convert.ConvertConfig(path=str(folder / "toy.h5ad"), obs=("cell_type",))
    convert.run(config, folder / "cells")
    rows = [
        {
            "cell_type": name,
            "question": f"Wording {n} of {name}?",
            "answer": answer,
            "keywords": [answer.split()[0]],
            "wording": n,
        }
        for name, answer in ANSWERS.items()
        for n in range(3)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "qa.jsonl").write_text(lines, encoding="utf-8")
    settings = {
        "tasks": ["question_answering", "cell_type_annotation"],
        "num_genes": 4,
        "split": {"test_fraction": 0.5},
        "qa": {
            "path": str(folder / "qa.jsonl"),
            "draws": 4,
            "split": {"holdout": {"wording": ["2"]}},
        },
    }
    corpus.run(corpus.CorpusConfig.model_validate(settings), folder / "cells", folder / "corpus")
    sources = read_manifest(folder / "corpus").sources_sha256
    assert [len(sha256) for sha256 in sources.values()] == [64]
    return read_prompts(folder / "corpus")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EvaluateTextConfig:
    folder = write_bert(tmp_path_factory.mktemp("bert"))
    return EvaluateTextConfig(
        task=Task.QUESTION_ANSWERING,
        num_prompts=6,
        samples_per_prompt=2,
        encoder=TextEncoderConfig(encoder=str(folder)),
        bootstrap_draws=200,
    )


@pytest.fixture(scope="module")
def policies(prompt_set: PromptSet, config: EvaluateTextConfig) -> Mapping[str, list[Group]]:
    """GRPO writes the right answer; SFT that of the other type, and one that was cut off."""
    groups: dict[str, list[Group]] = {"SFT": [], "GRPO": []}
    for record in select_text_prompts(config, prompt_set).records_P:
        wrong = next(a for a in ANSWERS.values() if a != record.target.strip())
        texts = {"SFT": (wrong, "kill kill"), "GRPO": (record.target, record.target)}
        for name, own in texts.items():
            completions = tuple(
                Completion(text, (1,), (0.0,), 0, is_truncated=text == "kill kill") for text in own
            )
            groups[name].append(Group(record, (1,), completions, (NO_CELL,) * 2))
    return groups


def test_prompts_are_held_out_and_taken_from_each_condition_in_turn(
    prompt_set: PromptSet, config: EvaluateTextConfig
) -> None:
    selection = select_text_prompts(config, prompt_set)
    assert [r.condition for r in selection.records_P] == ["B", "T"] * 3
    assert {r.split for r in selection.records_P} == {Split.TEST}
    assert all("Wording 2" in r.prompt for r in selection.records_P)
    assert selection.skipped == {"more than num_prompts": 2}


def test_results_and_report_are_written(
    prompt_set: PromptSet,
    config: EvaluateTextConfig,
    policies: Mapping[str, list[Group]],
    tmp_path: Path,
) -> None:
    found = run(
        config,
        prompt_set=prompt_set,
        groups_by_policy={name: groups[::-1] for name, groups in policies.items()},
        metrics=None,
        run_info=RUN,
        output=tmp_path,
    )
    text = (tmp_path / "text_evaluation.json").read_text(encoding="utf-8")
    assert TextEvaluation.model_validate_json(text) == found
    by_name = {method.name: method for method in found.methods}
    assert list(by_name) == ["most common", "shuffled", "SFT", "GRPO", "right answer"]
    assert by_name["GRPO"].metrics[TextMetric.BERTSCORE].mean == pytest.approx(1.0, abs=1e-6)
    assert by_name["GRPO"].metrics[TextMetric.EXACT_LABEL].mean == 1.0
    assert by_name["SFT"].metrics[TextMetric.TRUNCATED_RATE].mean == 0.5
    assert by_name["SFT"].metrics[TextMetric.KEYWORD_RECALL].mean == 0.0
    # Half the prompts have the most common answer, the other half the other one.
    assert by_name["most common"].metrics[TextMetric.EXACT_LABEL].mean == 0.5
    assert by_name["shuffled"].metrics[TextMetric.EXACT_LABEL].mean == 0.0
    assert found.verdict.outcome is Outcome.BETTER
    assert (found.num_unseen_answers, found.unseen_conditions) == (0, ())
    assert "layer 3 of 4, 32 tokens, float32" in found.encoder
    html = (tmp_path / "text_report.html").read_text(encoding="utf-8")
    assert found.verdict.headline in html
    assert "GRPO \N{MINUS SIGN} SFT" in html


def test_a_policy_that_skipped_a_prompt_is_refused(
    prompt_set: PromptSet,
    config: EvaluateTextConfig,
    policies: Mapping[str, list[Group]],
    tmp_path: Path,
) -> None:
    def evaluate(groups: Mapping[str, list[Group]]) -> None:
        run(
            config,
            prompt_set=prompt_set,
            groups_by_policy=groups,
            metrics=None,
            run_info=RUN,
            output=tmp_path,
        )

    with pytest.raises(StageError, match="SFT must answer each of the 6 selected prompts once"):
        evaluate({"SFT": policies["SFT"][1:]})
    with pytest.raises(StageError, match="needs the answers of at least one policy, got none"):
        evaluate({})
    with pytest.raises(ConfigError, match=r"baseline must be one of .*got 'SFT'"):
        evaluate({"Base": policies["SFT"], "GRPO": policies["GRPO"]})


def test_what_is_not_held_out_cannot_be_evaluated(prompt_set: PromptSet) -> None:
    with pytest.raises(ConfigError, match="task must be named when several are held out"):
        select_text_prompts(EvaluateTextConfig(), prompt_set)
    wrong = EvaluateTextConfig(task=Task.QUESTION_ANSWERING, conditions=("NK",))
    with pytest.raises(ConfigError, match=r"a held-out condition must be one of .*got 'NK'"):
        select_text_prompts(wrong, prompt_set)
    train = PromptSet(
        tuple(r for r in prompt_set.records if r.split is Split.TRAIN), prompt_set.manifest
    )
    with pytest.raises(StageError, match="needs held-out prompts for text, got none"):
        select_text_prompts(EvaluateTextConfig(), train)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "cell_generation"}, "task must be one whose answers are text"),
        ({"baseline": "GRPO"}, "baseline and candidate must differ"),
        ({"encoder": {"layers": 3}}, r"got 'encoder.layers' .*did you mean 'layer'"),
    ],
)
def test_config_rules(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(EvaluateTextConfig, settings, "run.yaml")
