"""Facts about the machine are read right."""

from pathlib import Path

import pytest

from c2s_rl.machine import Gpu, Machine, cpu_features, free_gib, inspect_machine, parse_gpus


def machine(features: tuple[str, ...]) -> Machine:
    return Machine("3.11.7", "x86_64", 2, features, 8.0, 4.0, 100.0, ())


def test_features_of_an_x86_cpu_in_order_of_merit() -> None:
    text = "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu amx_bf16 sse2 avx512f avx2\npower :\n"
    assert cpu_features(text) == ("avx2", "avx512f", "amx_bf16")


def test_features_of_an_arm_cpu() -> None:
    assert cpu_features("Features\t: fp asimd sve bf16\n") == ("sve", "bf16")


def test_unknown_cpu_has_no_features() -> None:
    assert cpu_features("") == ()


@pytest.mark.parametrize(
    ("features", "expected"),
    [(("avx2", "avx512f"), False), (("avx512_bf16",), True), (("amx_bf16",), True)],
)
def test_bfloat16_needs_its_own_instructions(features: tuple[str, ...], expected: bool) -> None:
    assert machine(features).has_native_bf16 is expected


def test_gpus_as_the_driver_lists_them() -> None:
    lines = ["NVIDIA H100 80GB HBM3, 81920", "Tesla T4, 15360", "No devices were found"]
    # 81920 MiB / 1024 = 80 GiB
    assert parse_gpus(lines) == (Gpu("NVIDIA H100 80GB HBM3", 80.0), Gpu("Tesla T4", 15.0))


def test_free_space_is_that_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    absent = free_gib(tmp_path / "not" / "there")
    assert absent == pytest.approx(free_gib(tmp_path), abs=1.0)


def test_this_machine_has_cores_and_memory(tmp_path: Path) -> None:
    found = inspect_machine(tmp_path)
    assert found.num_cores >= 1
    assert 0.1 < found.memory_gib < 1e5
