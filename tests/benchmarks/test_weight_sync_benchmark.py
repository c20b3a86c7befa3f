from tests.benchmarks import weight_sync


def test_it_measures_both_sides():
    (result,) = weight_sync.results(quick=True)
    assert result.ratio > 0
    # 100 x 32 + 2 x (32 x 96 + 96 + 32 x 32 + 32 + 2 x 32 x 64 + 64 + 32 + 64) = 20,160 numbers
    assert weight_sync.num_bytes("quick") == 4 * (
        100 * 32 + 2 * (32 * 96 + 96 + 32 * 32 + 32 + 2 * 32 * 64 + 64 + 32 + 64)
    )
