"""What a machine is, which a time must be read beside. Linux tells all of it, other systems less."""

import glob
import os
import platform
from collections.abc import Mapping
from typing import Any

CACHES = "/sys/devices/system/cpu/cpu0/cache/index*/size"
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def machine_facts(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Of the CPU: model, flags, cores, bytes of memory and last cache, governor; None where unknown.

    `threads` is how many a model may use; `runtime` is what its module in this folder tells.
    """
    cpuinfo = _cpuinfo()
    return {
        "model": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "flags": sorted((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()),
        "physical_cores": len({_read(path) for path in glob.glob(SIBLINGS.format("[0-9]*"))}) or None,
        "logical_cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cache_bytes": cache_bytes(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "threads": threads_available(),
        "runtime": dict(runtime),
    }


def threads_available() -> int:
    """Physical cores this process may use: its affinity, SMT siblings counted once, and its CPU quota."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = {_read(SIBLINGS.format(cpu)) or str(cpu) for cpu in os.sched_getaffinity(0)}
    quota = cpu_quota(_read("/sys/fs/cgroup/cpu.max"))
    return max(1, min(len(cores), int(quota) if quota else len(cores)))


def cpu_quota(cpu_max: str | None) -> float | None:
    """CPUs that a container may use, from cgroup v2's `cpu.max` ("200000 100000" is 2); None is no limit."""
    if not cpu_max or cpu_max.startswith("max"):
        return None
    quota, period = cpu_max.split()
    return int(quota) / int(period)


def cache_bytes() -> int | None:
    """Size of the last-level cache; None where Linux does not tell it."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    texts = [_read(path) or "" for path in glob.glob(CACHES)]
    sizes = [int(t[:-1]) * units[t[-1]] for t in texts if t[:-1].isdigit() and t[-1] in units]
    return max(sizes, default=None)


def _cpuinfo() -> dict[str, str]:
    lines = (_read("/proc/cpuinfo") or "").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None
