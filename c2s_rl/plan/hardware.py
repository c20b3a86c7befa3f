"""Clusters as numbers: what a device computes, holds and moves a second.

GPUs are known by name with the numbers of their data sheets; another cluster is a YAML file with
the keys of `ClusterConfig`. A CPU has no such sheet: `c2s_rl/plan/measure.py` times it. Decimal
units throughout, as data sheets have them: 1 GB is 1e9 bytes.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from c2s_rl.config import FrozenConfig, load_yaml, validate
from c2s_rl.errors import ConfigError

GIGA = 1e9
TERA = 1e12


@dataclass(frozen=True)
class Device:
    """One accelerator, or all cores of a CPU."""

    name: str
    source: str
    """Where the numbers come from."""
    is_cpu: bool
    bf16_flops_per_s: float
    """Peak of dense bfloat16 matrix products."""
    fp32_flops_per_s: float
    """Peak of float32 matrix products."""
    memory_bytes: float
    memory_bytes_per_s: float
    """Bandwidth of its memory."""
    link_bytes_per_s: float
    """To another device of the node, one direction."""
    host_link_bytes_per_s: float
    """To main memory, one direction."""

    def peak_flops_per_s(self, element_bytes: int) -> float:
        """Peak for elements of 2 (bfloat16) or 4 bytes (float32)."""
        return self.bf16_flops_per_s if element_bytes == 2 else self.fp32_flops_per_s


@dataclass(frozen=True)
class Cluster:
    """Equal nodes of equal devices."""

    name: str
    device: Device
    num_nodes: int
    devices_per_node: int
    network_bytes_per_s: float
    """Between nodes, per device, one direction."""
    host_memory_bytes: float
    """Main memory of a node."""

    @property
    def num_devices(self) -> int:
        """Of all nodes."""
        return self.num_nodes * self.devices_per_node

    def ring_bytes_per_s(self, num_devices: int) -> float:
        """Rate at which a ring of devices passes data on.

        Within a node the link. Across nodes NCCL runs as many rings as a node has network
        adapters, each over another one, so that a node's adapters add up:
        min(link, devices_per_node x network).

        Args:
            num_devices: Devices of the ring; nodes are filled one after the other.
        """
        if num_devices <= self.devices_per_node:
            return self.device.link_bytes_per_s
        node_bytes_per_s = self.devices_per_node * self.network_bytes_per_s
        return min(self.device.link_bytes_per_s, node_bytes_per_s)


def _gpu(name: str, source: str, *, memory_gb: float, tb_per_s: float) -> Device:
    """Hopper's SXM modules differ in their memory only."""
    return Device(
        name=name,
        source=source,
        is_cpu=False,
        bf16_flops_per_s=989.4 * TERA,  # dense: half of the sheet's figure "with sparsity"
        fp32_flops_per_s=66.9 * TERA,  # plain float32, as torch multiplies unless told otherwise
        memory_bytes=memory_gb * GIGA,
        memory_bytes_per_s=tb_per_s * TERA,
        link_bytes_per_s=450 * GIGA,  # NVLink 4: 900 GB/s for both directions
        host_link_bytes_per_s=64 * GIGA,  # PCIe 5.0 x16: 128 GB/s for both directions
    )


GPUS = {
    "H100": _gpu("H100", "NVIDIA H100 SXM data sheet", memory_gb=80, tb_per_s=3.35),
    "H200": _gpu("H200", "NVIDIA H200 SXM data sheet", memory_gb=141, tb_per_s=4.8),
}
# DGX H100 and HGX H100/H200 boards: one 400 Gb/s adapter a GPU, 2 TB of main memory.
NETWORK_BYTES_PER_S = 50 * GIGA
HOST_MEMORY_BYTES = 2 * TERA


class ClusterConfig(FrozenConfig):
    """A cluster that has no name here; decimal units."""

    name: str = Field(description="For the plan's heading")
    is_cpu: bool = Field(default=False, description="A device is all cores of a node")
    num_nodes: int = Field(1, ge=1, description="Machines")
    devices_per_node: int = Field(ge=1, description="GPUs a machine; 1 for a CPU")
    memory_gb: float = Field(gt=0, description="Memory of a device, GB")
    bf16_tflops: float = Field(gt=0, description="Peak of dense bfloat16 products, TFLOP/s")
    fp32_tflops: float = Field(gt=0, description="Peak of float32 products, TFLOP/s")
    memory_gb_per_s: float = Field(gt=0, description="Bandwidth of a device's memory, GB/s")
    link_gb_per_s: float = Field(gt=0, description="Device to device, one direction, GB/s")
    host_link_gb_per_s: float = Field(gt=0, description="Device to main memory, GB/s")
    network_gb_per_s: float = Field(gt=0, description="Node to node, per device, GB/s")
    host_memory_gb: float = Field(gt=0, description="Main memory of a node, GB")

    def build(self, source: str) -> Cluster:
        """Translate to bytes and operations a second."""
        device = Device(
            name=self.name,
            source=source,
            is_cpu=self.is_cpu,
            bf16_flops_per_s=self.bf16_tflops * TERA,
            fp32_flops_per_s=self.fp32_tflops * TERA,
            memory_bytes=self.memory_gb * GIGA,
            memory_bytes_per_s=self.memory_gb_per_s * GIGA,
            link_bytes_per_s=self.link_gb_per_s * GIGA,
            host_link_bytes_per_s=self.host_link_gb_per_s * GIGA,
        )
        return Cluster(
            self.name,
            device,
            self.num_nodes,
            self.devices_per_node,
            self.network_gb_per_s * GIGA,
            self.host_memory_gb * GIGA,
        )


def parse_cluster(text: str) -> Cluster:
    """Read '4xH100', '2x8xH100' (nodes x GPUs), '2cores' (this machine, timed) or a YAML file.

    Raises:
        ConfigError: If it is none of them.
        MissingFileError: If the YAML file is not there.
    """
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        return validate(ClusterConfig, load_yaml(path), text).build(text)
    cores = re.fullmatch(r"([1-9]\d*)\s?cores?", text)
    if cores:
        from c2s_rl.plan.measure import measure_cpu

        return measure_cpu(int(cores[1]))
    found = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)x(\w+)", text)
    if not found or found[3].upper() not in GPUS:
        raise ConfigError(
            f"a cluster must be like 4xH100, 2x8xH100 or 2cores, of {', '.join(GPUS)}, "
            f"or a YAML file, got {text!r}"
        )
    device = GPUS[found[3].upper()]
    num_nodes, per_node = int(found[1] or 1), int(found[2])
    return Cluster(text, device, num_nodes, per_node, NETWORK_BYTES_PER_S, HOST_MEMORY_BYTES)
