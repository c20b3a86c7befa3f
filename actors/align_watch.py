"""What an alignment is watched by, from a run's config and folders, and which policy it led to."""

from pathlib import Path

from actors.run_config import RunConfig
from c2s_rl.data.prompt_set import PromptSet, read_prompts
from c2s_rl.evaluation.learning_curve import Checkpoint, metric_label, read_best
from c2s_rl.evaluation.probes import probe_ruler
from c2s_rl.pipeline.align import Watch
from c2s_rl.pipeline.held_out import prepare
from c2s_rl.prompts.tasks import TASK_RULES


def find_watch(run: RunConfig, prompts: PromptSet, *, corpus: Path, cells: Path) -> Watch:
    """Probes for every step, and held-out prompts where `align.evaluation` asks for them.

    Args:
        run: With a section `align`.
        prompts: Training prompts.
        corpus: Folder of all prompts; read only where held-out ones are needed.
        cells: Folder of the cells that they were made from; likewise.

    Raises:
        ConfigError: See `prepare`.
        StageError: If no held-out prompt can be used.
    """
    assert run.align is not None
    task, config = run.align.task, run.align.evaluation
    has_cells = TASK_RULES[task].is_cell_sentence
    ruler = probe_ruler(prompts.vocabulary, prompts.num_genes, has_cells=has_cells)
    if config is None:
        return Watch(ruler)
    return Watch(ruler, prepare(config, task, read_prompts(corpus), cells, seed=run.seed))


def describe_choice(run: RunConfig, best_folder: Path) -> list[str]:
    """Say which step's policy is evaluated, in one sentence; none where there was no choice."""
    best = read_best(best_folder)
    if run.evaluate is None or best is None:
        return []
    metric, step = metric_label(best.metric), best.point.step
    if run.evaluate.candidate_checkpoint is Checkpoint.BEST:
        return [f"evaluated: the policy after step {step}, the best by {metric} during training"]
    return [f"evaluated: the policy after the last step; the best by {metric} was step {step}"]
