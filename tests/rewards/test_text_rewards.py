"""Keyword recall, exact label, length and BERTScore as rewards, chosen by name."""

from pathlib import Path

import numpy as np
import pytest

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, Split, Task
from rewards import load_reward
from rewards.base import RewardBatch
from tests.text_encoders import write_bert

NO_GENES = np.zeros(0, dtype=np.int32)
NO_CELL = ParsedCell(NO_GENES, 0, 0, (), is_truncated=False)


def group(target: str, texts: list[str], keywords: tuple[str, ...] = ()) -> Group:
    record = PromptRecord(
        prompt_id=target,
        prompt="Q:",
        target=target,
        task=Task.QUESTION_ANSWERING,
        condition="B",
        context_id="",
        target_id="",
        split=Split.TRAIN,
        target_genes_K=NO_GENES,
        context_genes_K=NO_GENES,
        keywords=keywords,
    )
    completions = tuple(Completion(text, (1,), (0.0,), 0, is_truncated=False) for text in texts)
    return Group(record, (1,), completions, (NO_CELL,) * len(texts))


def batch(*groups: Group, material: RewardMaterial | None = None) -> RewardBatch:
    return RewardBatch(groups, Vocabulary(("A",), ("A",)), material or RewardMaterial())


def test_keyword_recall_abstains_without_keywords() -> None:
    reward = load_reward("keyword_recall", {})
    groups = group(" B cells", ["B cells", "t"], ("B cells", "CD19")), group(" x", ["x"])
    assert reward.score(batch(*groups)).scores == (0.5, 0.0, None)


def test_exact_label_is_all_or_nothing() -> None:
    reward = load_reward("exact_label", {})
    groups = group(" B cell", [" b cell.", "B cells", ""]), group(" ", ["x"])
    assert reward.score(batch(*groups)).scores == (1.0, 0.0, 0.0, None)


def test_length_costs_outside_its_bounds_only() -> None:
    reward = load_reward("length", {"min_words": 4, "max_words": 10})
    texts = ["", "w", "w " * 4, "w " * 10, "w " * 15, "w " * 100_000]
    result = reward.score(batch(group(" x", texts)))
    # (0 - 4) / 4, (1 - 4) / 4, 0, 0, -(15 - 10) / 10, capped
    assert result.scores == (-1.0, -0.75, 0.0, 0.0, -0.5, -1.0)
    assert result.diagnostics["num_words"][:3] == (0.0, 1.0, 4.0)


def test_bounds_of_length_must_not_cross() -> None:
    with pytest.raises(ConfigError, match=r"min_words must be at most max_words=3, got 4"):
        load_reward("length", {"min_words": 4, "max_words": 3})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bert(tmp_path_factory.mktemp("bert")))


TEXTS = ["t cells kill tumour cells", "b", "", "\N{CRAB}", "cells " * 100_000]


def test_bertscore_scores_across_groups_in_order(bert: str) -> None:
    reward = load_reward("bertscore", {"encoder": bert})
    groups = group(" t cells kill tumour cells", TEXTS), group(" b cells of blood", TEXTS)
    scores = reward.score(batch(*groups)).scores
    assert scores[0] == pytest.approx(1.0, abs=1e-6)
    assert scores[2] == scores[7] == 0.0  # no token at all, as in the package
    assert all(score is not None and score < 1 for score in scores[1:])
    swapped = reward.score(batch(*reversed(groups))).scores
    assert swapped == pytest.approx(scores[5:] + scores[:5], abs=1e-6)


def test_bertscore_takes_no_completion_one_and_ten_thousand(bert: str) -> None:
    reward = load_reward("bertscore", {"encoder": bert})
    assert reward.score(batch()).scores == ()
    assert len(reward.score(batch(group(" b cells", ["b"]))).scores) == 1
    texts = [f"t cells {'of blood ' * (i % 7)}{'.' * (i % 90)}" for i in range(10_000)]
    scores = reward.score(batch(group(" b cells", texts))).scores
    assert len(scores) == 10_000
    assert all(score is not None and 0 < score <= 1 for score in scores)


def test_bertscore_abstains_without_a_right_answer(bert: str) -> None:
    reward = load_reward("bertscore", {"encoder": bert})
    groups = group(" ", ["b", "t"]), group(" b cells", ["b cells"])
    scores = reward.score(batch(*groups)).scores
    assert scores[:2] == (None, None)
    assert scores[2] == pytest.approx(1.0, abs=1e-6)
    assert reward.score(batch(groups[0])).scores == (None, None)


def test_bertscore_field_and_baseline_are_chosen(bert: str) -> None:
    groups = batch(group(" t cells kill tumour cells", ["t cells"]))
    (f1,) = load_reward("bertscore", {"encoder": bert}).score(groups).scores
    (recall,) = load_reward("bertscore", {"encoder": bert, "field": "recall"}).score(groups).scores
    (scaled,) = load_reward("bertscore", {"encoder": bert, "baseline": 0.5}).score(groups).scores
    assert recall != pytest.approx(f1, abs=1e-4)
    assert scaled == pytest.approx((f1 - 0.5) / 0.5)


def test_bertscore_keeps_references_where_the_run_shares_encodings(
    bert: str, tmp_path: Path
) -> None:
    groups = group(" b cells", ["b"]), group(" t cells", ["b"])
    shared = batch(*groups, material=RewardMaterial(cache=tmp_path))
    first = load_reward("bertscore", {"encoder": bert}).score(shared).scores
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert load_reward("bertscore", {"encoder": bert}).score(shared).scores == first


def test_bertscore_with_idf_needs_a_corpus(bert: str) -> None:
    reward = load_reward("bertscore", {"encoder": bert, "idf": True})
    with pytest.raises(DataError, match="idf needs the training answers, got no corpus"):
        reward.score(batch(group(" b cells", ["b"])))


def test_a_missing_encoder_is_found_when_the_config_is_read() -> None:
    with pytest.raises(MissingFileError, match=r"folder must exist, got nowhere"):
        load_reward("bertscore", {"encoder": "./nowhere"})
