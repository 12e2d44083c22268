"""What this machine is: the facts that a time or a speed-up must be read beside (Linux; fewer elsewhere)."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil


def cpu_facts() -> dict[str, Any]:
    """Model, flags, physical and logical cores, bytes of memory, governor; None where unknown."""
    cpuinfo = _cpuinfo()
    return {
        "model": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "flags": sorted((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
    }


def threads_available() -> int:
    """Physical cores this process may use: its affinity, SMT siblings counted once, and its CPU quota."""
    if not hasattr(os, "sched_getaffinity"):
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {_read(Path(topology.format(cpu))) or str(cpu) for cpu in os.sched_getaffinity(0)}
    quota = cpu_quota(_read(Path("/sys/fs/cgroup/cpu.max")))
    return max(1, min(len(cores), int(quota) if quota else len(cores)))


def cpu_quota(cpu_max: str | None) -> float | None:
    """CPUs that a container may use, from cgroup v2's `cpu.max` ("200000 100000" is 2); None is no limit."""
    if not cpu_max or cpu_max.startswith("max"):
        return None
    quota, period = cpu_max.split()
    return int(quota) / int(period)


def _cpuinfo() -> dict[str, str]:
    lines = (_read(Path("/proc/cpuinfo")) or "").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
