"""Clusters: by name, from a file, measured."""

import pytest

from c2s_rl.errors import ConfigError, MissingFileError
from c2s_rl.plan.hardware import parse_cluster
from c2s_rl.plan.measure import measure_cpu

FILE = """\
name: lab
devices_per_node: 2
memory_gb: 48
bf16_tflops: 180
fp32_tflops: 90
memory_gb_per_s: 860
link_gb_per_s: 28
host_link_gb_per_s: 28
network_gb_per_s: 10
host_memory_gb: 256
"""


@pytest.mark.parametrize(
    ("text", "nodes", "per_node", "memory_gb"),
    [("4xH100", 1, 4, 80), ("2x8xH100", 2, 8, 80), ("1xh200", 1, 1, 141)],
)
def test_names_of_clusters(text, nodes, per_node, memory_gb):
    cluster = parse_cluster(text)
    assert (cluster.num_nodes, cluster.devices_per_node) == (nodes, per_node)
    assert cluster.num_devices == nodes * per_node
    assert cluster.device.memory_bytes == memory_gb * 1e9


@pytest.mark.parametrize("text", ["4xB300", "H100", "0xH100", "2xcores", "four"])
def test_other_names_are_refused(text):
    with pytest.raises(ConfigError, match=f"must be like 4xH100.*of H100, H200, .*got '{text}'"):
        parse_cluster(text)


def test_a_ring_across_nodes_has_all_network_adapters_of_a_node():
    # 8 adapters x 50 GB/s = 400 < NVLink's 450; with 16 of them the link would bind.
    cluster = parse_cluster("2x8xH100")
    assert cluster.ring_bytes_per_s(8) == 450e9
    assert cluster.ring_bytes_per_s(16) == 400e9


def test_a_cluster_in_a_file(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(FILE)
    cluster = parse_cluster(str(path))
    assert cluster.name == "lab"
    assert cluster.num_devices == 2
    assert cluster.device.peak_flops_per_s(2) == 180e12
    assert cluster.device.peak_flops_per_s(4) == 90e12
    with pytest.raises(MissingFileError, match=r"got .*none\.yaml"):
        parse_cluster(str(tmp_path / "none.yaml"))
    path.write_text(FILE.replace("memory_gb:", "memory_gib:"))
    with pytest.raises(ConfigError, match=r"got 'memory_gib' in .*did you mean 'memory_gb"):
        parse_cluster(str(path))


def test_a_cpu_is_timed():
    import torch

    threads = torch.get_num_threads()
    cluster = measure_cpu(1, seconds=0.02)
    assert torch.get_num_threads() == threads
    assert cluster.num_devices == 1
    assert cluster.device.is_cpu
    # Any core of this century multiplies 10^8 to 10^13 numbers a second and copies 10^8 bytes.
    assert 1e8 < cluster.device.fp32_flops_per_s < 1e13
    assert 1e8 < cluster.device.memory_bytes_per_s < 1e13
