"""Stage pretrain: the base model learns cell sentences and their labels in all their forms.

    c2s-rl pretrain --config configs/pretrain_pythia_410m_h100.yaml

The same trainer as `sft` (`c2s_rl/pipeline/sft.py`) with the settings of pretraining: every token
of a sample is learnt, prompt included (the next-token objective), samples are packed into rows, and
the corpus is passed once. Where a run has this stage, `sft` goes on from `pretrain/policy`.
Source: methods.md section 2 (C2S-Scale, bioRxiv 2025.04.14.648850): lr 1e-5, linear decay, weight
decay 0.01. Left out: text from outside the corpus mixed in.
"""

from typing import ClassVar

from pydantic import Field

from c2s_rl.data.token_config import Learn, SftDataConfig
from c2s_rl.pipeline.sft import SftConfig


class PretrainDataConfig(SftDataConfig):
    """Which prompts are learnt from; by default all tasks, all tokens, packed."""

    learn: Learn = Field(
        Learn.ALL, description="all: prompt and target are learnt; completion: the target alone"
    )
    packing: bool = Field(
        default=True, description="Lay several samples into each row, up to max_length tokens"
    )


class PretrainConfig(SftConfig):
    """Optimisation of the stage `pretrain`."""

    stage: ClassVar[str] = "pretrain"
    default_epochs: ClassVar[float] = 1.0

    data: PretrainDataConfig = Field(
        PretrainDataConfig(), description="Prompts and their layout in rows"
    )
