"""Sampled completions with parsed cells and scores, as Parquet files that can be looked into."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.types import ScoredGroup


def write_completions(
    path: Path, scored: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
) -> None:
    """Write one row a completion.

    Columns: prompt_id, prompt, condition, completion, genes (vocabulary indices), num_words,
    num_duplicates, unknown, is_truncated, reward, advantage, policy_version, num_tokens,
    rollout_logprob (sum over tokens), and `reward/<name>`, `diagnostic/<name>`.

    Args:
        path: The file; its folder is created, and a file that is there is replaced.
        scored: P groups.
        advantages: [P][G].
    """
    columns: dict[str, list[object]] = {}
    for group_scores, advantages_G in zip(scored, advantages, strict=True):
        group = group_scores.group
        for index, (completion, cell) in enumerate(
            zip(group.completions_G, group.cells_G, strict=True)
        ):
            row: dict[str, object] = {
                "prompt_id": group.record.prompt_id,
                "prompt": group.record.prompt,
                "condition": group.record.condition,
                "completion": completion.text,
                "genes": cell.genes_K.tolist(),
                "num_words": cell.num_words,
                "num_duplicates": cell.num_duplicates,
                "unknown": list(cell.unknown),
                "is_truncated": completion.is_truncated,
                "reward": group_scores.rewards_G[index],
                "advantage": advantages_G[index],
                "policy_version": completion.policy_version,
                "num_tokens": len(completion.token_ids_T),
                "rollout_logprob": float(sum(completion.rollout_logprobs_T)),
            }
            row |= {f"reward/{name}": v[index] for name, v in group_scores.components.items()}
            row |= {f"diagnostic/{name}": v[index] for name, v in group_scores.diagnostics.items()}
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table(columns), partial, compression="zstd")
    partial.replace(path)
