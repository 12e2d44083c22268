"""What a machine tells of itself while something is timed; what it does not tell is None or left out."""

import glob
import os
import sys
import time
from typing import Any


def memory() -> dict[str, int | None]:
    """Resident bytes now and at the peak of this process."""
    try:
        with open("/proc/self/status") as lines:
            status = dict(line.split(":", 1) for line in lines)
        now, peak = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return {"rss_bytes": now, "peak_rss_bytes": peak}
    except (OSError, KeyError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"rss_bytes": None, "peak_rss_bytes": peak}


def run_delay() -> float | None:
    """Seconds that our threads were ready to run and had no core (Linux)."""
    total = 0
    try:
        for path in glob.glob("/proc/self/task/*/schedstat"):
            with open(path) as file:
                total += int(file.read().split()[1])
    except (OSError, IndexError):
        return None
    return total / 1e9


def affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def available_bytes() -> int:
    """Memory that may be taken without swapping; 2 GB where the system does not tell."""
    try:
        with open("/proc/meminfo") as lines:
            return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    except (OSError, StopIteration):
        return 2 * 10**9


class Watch:
    """What else the machine did while some blocks ran."""

    def __init__(self) -> None:
        self.before, self.start = machine_counters(), time.perf_counter()
        self.own_cpu = -time.process_time()
        self.waited: list[float | None] = []
        self.mhz: list[float | None] = []

    def add(self, block: dict[str, Any]) -> None:
        self.own_cpu += block["cpu_seconds"]
        self.waited.append(block["waited_seconds"])
        self.mhz.append(frequency_mhz())

    def facts(self) -> dict[str, Any]:
        """Seconds of the wall, of our CPU time and of others', and what else the machine tells."""
        own = self.own_cpu + time.process_time()
        facts: dict[str, Any] = {"seconds": time.perf_counter() - self.start, "own_cpu_seconds": own}
        after = machine_counters()
        if self.before and after:
            spent = {key: after[key] - self.before[key] for key in after}
            facts["other_cpu_seconds"] = max(0.0, spent.pop("busy_seconds") - own)
            facts.update(spent)
        for name, seen in (("waited_seconds", self.waited), ("mhz", self.mhz)):
            if None not in seen:
                facts[name] = seen if name == "mhz" else sum(each or 0.0 for each in seen)
        if hasattr(os, "getloadavg"):
            facts["load_average"] = os.getloadavg()[0]
        return facts


def machine_counters() -> dict[str, float] | None:
    """Seconds that all cores were busy or stolen since boot, and thermal throttlings (Linux)."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, steal = (int(x) for x in file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    throttled = sum(read_numbers("/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"))
    busy = user + nice + system + irq + softirq
    return {"busy_seconds": busy / ticks, "steal_seconds": steal / ticks, "throttled": throttled}


def frequency_mhz() -> float | None:
    """The fastest core's frequency now: ours, if the machine is otherwise idle."""
    khz = read_numbers("/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    return max(khz) / 1e3 if khz else None


def read_numbers(pattern: str) -> list[int]:
    numbers = []
    for path in glob.glob(pattern):
        try:
            with open(path) as file:
                numbers.append(int(file.read()))
        except (OSError, ValueError):
            pass
    return numbers


def energy_counters(root: str = "/sys/class/powercap") -> dict[str, tuple[int, int]]:
    """{package: (microjoules, where the counter wraps)} from RAPL; empty where it cannot be read."""
    counters = {}
    for path in glob.glob(os.path.join(root, "intel-rapl:[0-9]*")):
        if os.path.basename(path).count(":") == 1:  # a package; deeper ones are parts of it
            now = read_numbers(os.path.join(path, "energy_uj"))
            wrap = read_numbers(os.path.join(path, "max_energy_range_uj"))
            if now and wrap:
                counters[path] = (now[0], wrap[0])
    return counters


def energy_spent(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float:
    """Joules between two readings, over a wrap of the counter if need be."""
    return sum((after[key][0] - now) % (wrap + 1) for key, (now, wrap) in before.items()) / 1e6
