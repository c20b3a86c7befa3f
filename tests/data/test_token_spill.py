from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.data.token_spill import KEY_END, KeyedSample, gather, write_runs


def sample(stream: int, key: int, tokens: list[int]) -> KeyedSample:
    ids = np.array(tokens, dtype=np.int32)
    return KeyedSample(stream=stream, key=key, task=3, num_prompt=1, ids=ids)


def shape(samples: list[KeyedSample]) -> list[tuple[int, int, list[int]]]:
    return [(s.stream, s.key, s.ids.tolist()) for s in samples]


SAMPLES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.integers(0, KEY_END - 1), st.sampled_from([0, KEY_END - 1])),
        st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5),
    ),
    max_size=40,
    unique_by=lambda drawn: drawn[:2],
)


@given(SAMPLES, st.integers(1, 500), st.integers(0, KEY_END), st.integers(0, 40))
def test_ranges_hold_every_sample_once_and_in_order(
    tmp_path_factory, drawn, run_tokens: int, border: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for i, part in enumerate((drawn[:cut], drawn[cut:])):
        paths.append(folder / f"{i}.arrow")
        write_runs(paths[-1], (sample(*d) for d in part), run_tokens=run_tokens)
    for stream in (0, 1, 2):
        found = gather(paths, stream, 0, border) if border else []
        found += gather(paths, stream, border, KEY_END) if border < KEY_END else []
        assert shape(found) == sorted(d for d in drawn if d[0] == stream)
        assert all((s.task, s.num_prompt) == (3, 1) for s in found)


def test_order_of_files_does_not_matter(tmp_path: Path) -> None:
    for name, key in (("a", 5), ("b", 2)):
        write_runs(tmp_path / name, [sample(0, key, [1]), sample(0, 9, [1] * key)], run_tokens=9)
    forth, back = ([tmp_path / name for name in names] for names in ("ab", "ba"))
    assert shape(gather(forth, 0)) == shape(gather(back, 0))
