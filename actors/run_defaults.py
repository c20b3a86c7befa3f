"""What a run's file need not say twice: defaults of sections that follow from other sections."""

from pydantic import JsonValue

from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.types import Task

Section = dict[str, JsonValue]


def with_corpus_defaults(data: Section) -> Section:
    """Fill in what embed, annotate and generate take from corpus and align where they say nothing.

    The length of sentences is the corpus'; known cell types, control cells and phrasings too,
    where the run's own cells are used; the longest answer is that of align's sampling.
    """
    result = dict(data)
    corpus, align = data.get("corpus"), data.get("align")
    if isinstance(corpus, dict):
        for name, filled in (
            ("embed", _embed_defaults(corpus)),
            ("annotate", _annotate_defaults(corpus)),
            ("generate", _generate_defaults(corpus)),
        ):
            section = data.get(name)
            if not isinstance(section, dict):
                continue
            is_own = not any(section.get(key) for key in ("cells", "source", "texts"))
            kept = filled if is_own else {"num_genes": filled["num_genes"]}
            # Texts have no genes, and a key that is there but null was left open on purpose.
            result[name] = section if section.get("texts") else kept | section
    generate = result.get("generate")
    if isinstance(generate, dict) and isinstance(align, dict):
        result["generate"] = {"max_tokens": _max_tokens(align)} | generate
    return result


def _embed_defaults(corpus: Section) -> Section:
    return {"num_genes": _value(corpus, "num_genes")}


def _annotate_defaults(corpus: Section) -> Section:
    filled = _embed_defaults(corpus) | {"known_column": _value(corpus, "cell_type_column")}
    templates = _templates(corpus, Task.CELL_TYPE_ANNOTATION)
    return filled | ({"templates": next(iter(templates.values()))} if templates else {})


def _generate_defaults(corpus: Section) -> Section:
    filled = _embed_defaults(corpus)
    column, control = corpus.get("condition_column"), corpus.get("control")
    if column is not None and control is not None:
        filled["controls"] = {
            "cell_type_column": _value(corpus, "cell_type_column"),
            "condition_column": column,
            "control": control,
        }
    tasks = (
        Task.CELL_GENERATION,
        Task.PERTURBATION_RESPONSE,
        Task.SINGLE_CELL_LANGUAGE_MODELLING,
    )
    templates = _templates(corpus, *tasks)
    return filled | ({"templates": templates} if templates else {})


def _templates(corpus: Section, *tasks: Task) -> Section:
    """The corpus' own template files of some tasks."""
    templates = corpus.get("templates")
    if not isinstance(templates, dict):
        return {}
    return {task.value: templates[task.value] for task in tasks if task.value in templates}


def _value(corpus: Section, key: str) -> JsonValue:
    default: JsonValue = CorpusConfig.model_fields[key].default
    return corpus.get(key, default)


def _max_tokens(align: Section) -> JsonValue:
    sampling = align.get("sampling")
    default: JsonValue = SamplingConfig.model_fields["max_tokens"].default
    return sampling.get("max_tokens", default) if isinstance(sampling, dict) else default
