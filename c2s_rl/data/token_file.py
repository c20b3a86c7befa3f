"""One corpus file tokenised: its samples as sorted runs, and what was counted on the way.

Both are written whole or not at all, and depend on nothing but the file, so that a run that was
killed goes on with the next one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from c2s_rl.checkpoint import replace_text
from c2s_rl.data.gene_tokens import GeneTokenCounter
from c2s_rl.data.token_config import Learn
from c2s_rl.data.token_mixture import TaskQuota
from c2s_rl.data.token_samples import EncodedSample, SampleEncoder, SampleText
from c2s_rl.data.token_source import SampleSource, SourceSample
from c2s_rl.data.token_spill import KeyedSample, write_runs
from c2s_rl.data.token_statistics import Tallier, TaskTally, TokenExample, TokenSide
from c2s_rl.types import Task

# Samples of a task and file whose genes are counted word by word: enough for a percentage.
GENE_SAMPLES = 64
# Tokens of an answer that the statistics page shows, and characters of both ends of a prompt.
EXAMPLE_TOKENS = 120
HEAD, TAIL = 320, 160

TRAIN_STREAM = 0

_TALLIES = TypeAdapter(tuple[TaskTally, ...])


@dataclass(frozen=True)
class FilePass:
    """Tokenises corpus files, one after another."""

    source: SampleSource
    """Reads the samples."""
    encoder: SampleEncoder
    """Tokenises them."""
    genes: GeneTokenCounter
    """Counts the tokens of genes."""
    codes: Mapping[Task, int]
    """Task to its code."""
    quotas: Mapping[Task, TaskQuota]
    """How often the samples of each task are shown."""
    run_tokens: int
    """Tokens that are held before a run is written."""

    def run(self, path: Path, spill: Path) -> tuple[TaskTally, ...]:
        """Tokenise one file, or read what was counted if that was done before.

        Args:
            path: Prompt shard.
            spill: File for its sorted runs; the counts stand beside it as JSON.

        Returns:
            What was counted.

        Raises:
            DataError: If the file is not whole, or a sample is too long and that is an error.
        """
        counted = spill.with_suffix(".json")
        if spill.is_file():
            return _TALLIES.validate_json(counted.read_text(encoding="utf-8"))
        tallier = Tallier()
        partial = spill.with_suffix(".partial")
        write_runs(partial, self._samples(path, tallier), run_tokens=self.run_tokens)
        tallies = tallier.tallies()
        # Before the runs get their name: where they are, the counts are too.
        replace_text(counted, _TALLIES.dump_json(tallies).decode())
        partial.replace(spill)
        return tallies

    def _samples(self, path: Path, tallier: Tallier) -> Iterator[KeyedSample]:
        num_counted: Counter[tuple[Task, TokenSide]] = Counter()
        for batch in self.source.read(path):
            shown: list[tuple[SourceSample, SampleText, int]] = []
            for place, text in batch:
                if place.is_shared:
                    tallier.shared(place.task)
                    continue
                copies = self._copies(place)
                if copies:
                    shown.append((place, text, copies))
                else:
                    tallier.thinned(place.task)
            encoded = self.encoder.encode([text for _, text, _ in shown])
            for (place, text, copies), sample in zip(shown, encoded, strict=True):
                tallier.shown(place.task, place.side, sample, copies)
                if not sample.is_in:
                    continue
                if num_counted[place.task, place.side] < GENE_SAMPLES:
                    num_counted[place.task, place.side] += 1
                    words = self.genes.count(text.prompt) + self.genes.count(text.target)
                    tallier.genes(place.task, place.side, words)
                yield from self._keyed(place, text, sample, copies, tallier)

    def _copies(self, place: SourceSample) -> int:
        quota = self.quotas[place.task]
        if place.side is TokenSide.EVAL or (quota.base, quota.last_hash) == (1, -1):
            return 1
        return quota.copies(self.source.mixture_hash(place.prompt_id))

    def _keyed(
        self,
        place: SourceSample,
        text: SampleText,
        sample: EncodedSample,
        copies: int,
        tallier: Tallier,
    ) -> Iterator[KeyedSample]:
        ids = np.concatenate([sample.prompt_ids, sample.target_ids])
        code = self.codes[place.task]
        is_all_learnt = self.source.config.learn is Learn.ALL
        for copy in range(copies):
            key = self.source.order_key(place.prompt_id, copy)
            if tallier.is_first(place.task, place.side, key):
                tallier.offer(place.task, place.side, self._example(text, sample, key))
            yield KeyedSample(
                stream=TRAIN_STREAM if place.side is TokenSide.TRAIN else 1 + code,
                key=key,
                task=code,
                num_prompt=0 if is_all_learnt else len(sample.prompt_ids),
                ids=ids,
            )

    def _example(self, text: SampleText, sample: EncodedSample, key: int) -> TokenExample:
        return TokenExample(
            key=key,
            prompt_id=text.prompt_id,
            prompt=_without_middle(text.prompt),
            target_pieces=self.encoder.pieces(sample.target_ids[:EXAMPLE_TOKENS]),
            num_prompt_tokens=len(sample.prompt_ids),
            num_target_tokens=len(sample.target_ids),
        )


def _without_middle(text: str) -> str:
    num_hidden = len(text) - HEAD - TAIL
    if num_hidden <= 40:
        return text
    return f"{text[:HEAD]} … ({num_hidden:,} characters) … {text[-TAIL:]}"
