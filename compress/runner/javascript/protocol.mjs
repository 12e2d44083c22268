// The worker's side of the protocol of `worker.py`: requests and replies are JSON, one a line.

import fs from "node:fs";
import readline from "node:readline";

const REPLIES = 3; // where `worker.become` put our stdout; what a runtime prints goes to stderr

// Answer requests until stdin closes; `requests` is {name: (what goes with it) -> reply}.
export async function answer(requests) {
  process.on("SIGINT", () => {}); // the runner ends us
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let reply;
    try {
      reply = await requests[request.do](request.with);
    } catch (error) {
      reply = { error: oneLine(error) };
    }
    fs.writeSync(REPLIES, JSON.stringify(reply) + "\n");
  }
  process.exit();
}

export function oneLine(error) {
  const text = String(error?.message ?? error).split(/\s+/).join(" ").trim();
  const signs = /failed to allocate|bad_alloc|bad allocation|out of memory|allocation failed/i;
  return signs.test(text) ? `out of memory: ${text}` : text;
}
