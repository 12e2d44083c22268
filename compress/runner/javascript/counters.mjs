// What a group of processes spent, as Linux tells it; null elsewhere.

import fs from "node:fs";

// Processes of this worker's group: a browser is several.
export function group() {
  const of = (pid) => Number(fs.readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1].split(" ")[2]);
  const [own, pids] = [of("self"), fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))];
  return pids.filter((pid) => attempt(() => of(pid)) === own);
}

// Resident bytes now and at the peak; what several processes share counts once.
export function memory() {
  const sum = { rss_bytes: 0, peak_rss_bytes: 0 };
  const pids = attempt(group);
  if (!pids) return { rss_bytes: null, peak_rss_bytes: process.resourceUsage().maxRSS * 1024 };
  for (const pid of pids) {
    const bytes = (file, key) => {
      const said = attempt(() => fs.readFileSync(`/proc/${pid}/${file}`, "latin1")) ?? "";
      return Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(said)?.[1] ?? 0) * 1024;
    };
    const resident = bytes("status", "VmRSS");
    const now = (pids.length > 1 && bytes("smaps_rollup", "Pss")) || resident;
    sum.rss_bytes += now;
    sum.peak_rss_bytes += now + Math.max(0, bytes("status", "VmHWM") - resident);
  }
  return sum;
}

// `block` with the seconds that all threads of the group computed meanwhile, and waited for a core.
export async function counted(block) {
  const [before, cpu] = [attempt(threads), process.cpuUsage()];
  const result = await block();
  const after = before && attempt(threads);
  if (!after) {
    const { user, system } = process.cpuUsage(cpu);
    return { ...result, cpu_seconds: (user + system) / 1e6, waited_seconds: null };
  }
  const spent = [0, 0];
  for (const [thread, now] of after) {
    const then = before.get(thread) ?? [0, 0];
    now.forEach((each, i) => (spent[i] += (each - then[i]) / 1e9));
  }
  return { ...result, cpu_seconds: spent[0], waited_seconds: spent[1] };
}

// Thread -> nanoseconds that it ran, and that it was ready to run and had no core.
function threads() {
  const spent = new Map();
  for (const pid of group()) {
    for (const thread of attempt(() => fs.readdirSync(`/proc/${pid}/task`)) ?? []) {
      const said = attempt(() => fs.readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1"));
      if (said) spent.set(thread, said.split(" ").slice(0, 2).map(Number));
    }
  }
  if (!spent.size) throw new Error("no schedstat");
  return spent;
}

function attempt(read) {
  try {
    return read(); // a process may end meanwhile
  } catch {
    return null;
  }
}
