"""Keywords, labels and words of free text."""

import pytest

from c2s_rl.evaluation.text_metrics import count_words, is_same_label, keyword_recall


@pytest.mark.parametrize(
    ("text", "keywords", "share"),
    [
        ("T  cells, LYZ and S100A8.", ("t cells", "LYZ", "CD14"), 2 / 3),
        ("CD3D is high", ("CD3",), 0.0),
        ("CD4+ T cells", ("CD4",), 0.0),
        ("CD4+ T cells", ("CD4+",), 1.0),
        ("HLA-DRA up", ("HLA",), 0.0),
        ("(GNLY)", ("gnly",), 1.0),
        ("GNLY GNLY", ("GNLY", "gnly"), 1.0),
        ("", ("GNLY",), 0.0),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER B} cells \N{CRAB}", ("B cells",), 1.0),
        ("a.c", ("abc",), 0.0),
        ("any", (), None),
        ("any", ("  ",), None),
    ],
)
def test_keyword_recall(text: str, keywords: tuple[str, ...], share: float | None) -> None:
    assert keyword_recall(text, keywords) == (None if share is None else pytest.approx(share))


def test_keywords_of_a_megabyte_are_found() -> None:
    assert keyword_recall("cell " * 200_000 + "GNLY", ("GNLY", "LYZ")) == 0.5


@pytest.mark.parametrize(
    ("text", "label", "is_same"),
    [
        (" cd14+  Monocyte.\n", "CD14+ Monocyte", True),
        ('"B cell"', " B cell", True),
        ("CD4 T cell", "CD4+ T cell", False),
        ("B cells", "B cell", False),
        ("", "B cell", False),
    ],
)
def test_labels_are_compared_without_case_space_and_end_marks(
    text: str, label: str, is_same: bool
) -> None:
    assert is_same_label(text, label) is is_same


def test_words_are_what_whitespace_separates() -> None:
    assert count_words(" HLA-DRA,  is\thigh\n") == 3
