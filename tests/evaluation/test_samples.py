"""Sample sentences with their faults marked."""

from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.cells.sentence import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.samples import MAX_WORDS, Mark, make_samples, mark_words, shorten

SYMBOLS = ("ISG15", "MX1", "ACTB", "CD3E")
VOCABULARY = Vocabulary(symbols=SYMBOLS, original=SYMBOLS)
PROGRAM = frozenset({0, 1})


def marks(text):
    return [(word.text, word.mark) for word in mark_words(text, VOCABULARY, PROGRAM)]


def test_words_are_marked_by_what_they_are():
    assert marks(" ACTB ISG15 actb ISG15 MX1.") == [
        ("ACTB", Mark.PLAIN),
        ("ISG15", Mark.PROGRAM),
        ("actb", Mark.UNKNOWN),
        ("ISG15", Mark.DUPLICATE),
        ("MX1", Mark.PROGRAM),
    ]


@given(st.lists(st.sampled_from([*SYMBOLS, "foo", "."]), max_size=12).map(" ".join))
def test_marks_agree_with_the_parser(text):
    cell = parse_cell(text, VOCABULARY, is_truncated=False)
    found = [mark for _, mark in marks(text)]
    assert len(found) == cell.num_words
    assert found.count(Mark.DUPLICATE) == cell.num_duplicates
    assert found.count(Mark.UNKNOWN) == len(cell.unknown)


def test_long_prompts_lose_their_middle():
    prompt = "Given " + "GENE " * 200 + "predict the response:"
    short = shorten(prompt)
    assert short.startswith("Given GENE GENE")
    assert short.endswith("predict the response:")
    assert len(short) < 400
    kept = len(short.replace("…", "").split()) - 2  # "(n", "words)"
    dropped = int(short.split("(")[1].split(" ")[0])
    assert kept + dropped == len(prompt.split())
    assert shorten("short:") == "short:"


def test_one_sample_a_condition_in_the_order_of_the_prompts(record, answer, group):
    text = " ACTB" * (MAX_WORDS + 5)
    groups = {
        "SFT": [
            group(record("1", "NK", target=(0, 2, 3)), ("ISG15", answer(0)), ("MX1", answer(1))),
            group(record("2", "NK"), ("MX1", answer(1))),
            group(record("3", "B"), (text, answer(2))),
        ]
    }
    samples = make_samples(groups, VOCABULARY, PROGRAM, num_genes=2, num_samples=5)
    assert [sample.condition for sample in samples] == ["NK", "B"]
    real, sft = samples[0].sentences
    assert (real.origin, sft.origin) == ("real", "SFT")
    assert [word.text for word in real.words] == ["ISG15", "ACTB"]  # the target's first two
    assert [word.text for word in sft.words] == ["ISG15"]  # the first answer
    assert samples[1].sentences[1].num_more == 5
