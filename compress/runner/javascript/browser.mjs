// `node browser.mjs FOLDER CHROMIUM FLAG...`: a worker whose model runs in a page of a headless Chromium, with
// onnxruntime-web, which lies in FOLDER's node_modules beside the library that drives the browser. With `--facts`
// in place of the flags, what that browser is.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { counted, memory } from "./counters.mjs";
import { answer, oneLine } from "./protocol.mjs";
import { serve } from "./server.mjs";

const [folder, program, ...words] = process.argv.slice(2);
const load = createRequire(path.join(folder, "package.json"));
const modules = path.join(folder, "node_modules");
const { version } = JSON.parse(fs.readFileSync(path.join(modules, "onnxruntime-web", "package.json"), "utf8"));
const FLAGS = [
  "--headless",
  "--no-sandbox", // the page is ours, and its model no less trusted than in a runtime without a browser
  "--no-first-run",
  "--disable-background-networking",
  "--disable-background-timer-throttling",
  "--disable-renderer-backgrounding",
  "--disable-backgrounding-occluded-windows",
  "--disable-hang-monitor", // it is stopped between requests
  "--disable-breakpad",
  "--disable-extensions",
  "--disable-dev-shm-usage",
  "--password-store=basic",
  "--remote-debugging-pipe",
];
const WAKING_MS = 150; // the browser was stopped: what waited in all of its processes runs before anything counts
const folders = new Set(); // of the files that requests named
let browser, page, complaint, trace, beside;

const requests = {
  ready: async () => {
    await start(words);
    return {};
  },
  load: async (request) => {
    if (!page) await start(words);
    for (const each of [request.path].flat()) allow(each);
    for (const each of Object.values(request.workloads)) allow(each);
    trace = `${request.profile}.json`;
    if (String(request.path).endsWith(".md")) beside = path.dirname(path.resolve(request.path));
    const before = memory().rss_bytes;
    const facts = await inPage("load", request);
    return { ...facts, rss_before_bytes: before, packages: packages() };
  },
  first_run: (request) => inPage("first_run", request),
  warm_up: (request) => inPage("warm_up", request),
  block: async (request) => {
    await new Promise((resolve) => setTimeout(resolve, WAKING_MS));
    await inPage("block", { ...request, count: 1 });
    return counted(() => inPage("block", request));
  },
  memory,
  outputs: (request) => {
    allow(request.feeds);
    allow(request.into);
    return inPage("outputs", request);
  },
  end_profiling: () => {
    allow(trace);
    return inPage("end_profiling", { into: trace });
  },
};

// A file of a request, and whatever lies beside it: a graph names its weights there.
function allow(name) {
  folders.add(path.dirname(path.resolve(name)));
}

function packages() {
  return { "onnxruntime-web": version, chromium: browser.version() };
}

async function start(flags) {
  // In the folder of the job, which goes with it however the browser ends.
  const profile = fs.mkdtempSync(path.resolve("browser-"));
  const process_ = spawn(program, [...FLAGS, ...flags, `--user-data-dir=${profile}`, "about:blank"], {
    stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
    cwd: profile,
    env: { ...process.env, HOME: profile, TMPDIR: "." }, // short: a socket lies there
  });
  const said = [];
  process_.stderr.on("data", (data) => said.push(String(data)) > 50 && said.shift());
  const ended = new Promise((resolve) => {
    process_.on("error", resolve);
    process_.on("close", (code, signal) => resolve(new Error(`Chromium ended (${signal ?? code}): ${said.join("")}`)));
  });
  const { chromium } = load("playwright-core");
  try {
    const connected = chromium.connectOverCDP(pipe(process_), { timeout: 60_000 });
    browser = await Promise.race([connected, ended.then((reason) => Promise.reject(reason))]);
  } catch {
    process_.kill();
    throw await ended;
  }
  const ours = path.dirname(fileURLToPath(import.meta.url));
  const allowed = (name) => folders.has(path.dirname(path.resolve(name)));
  const { url, key } = await serve({ ours, modules, allowed, beside: () => beside });
  const context = browser.contexts()[0] ?? (await browser.newContext());
  await context.addCookies([{ name: "key", value: key, url, httpOnly: true, sameSite: "Strict" }]);
  page = await context.newPage();
  page.setDefaultTimeout(60_000); // of its start: what a model computes has no limit here
  page.on("crash", () => (complaint = "out of memory, or the page crashed"));
  await page.goto(`${url}/page.html`);
  await page.waitForFunction(() => "ask" in window);
  return { process_, ended };
}

// Messages of the browser's protocol, each ended by a zero: no port is open that others could use.
function pipe(process_) {
  const [to, from] = process_.stdio.slice(3);
  to.on("error", () => {}); // that it ended is heard of in another way
  const transport = {
    send: (message) => to.write(JSON.stringify(message) + "\0"),
    close: () => to.end(),
  };
  let waiting = [];
  from.on("data", (data) => {
    const parts = data.toString("latin1").split("\0");
    parts.forEach((part, i) => {
      waiting.push(part);
      if (i === parts.length - 1) return;
      const message = Buffer.from(waiting.join(""), "latin1").toString();
      waiting = [];
      transport.onmessage?.(JSON.parse(message));
    });
  });
  from.on("close", () => transport.onclose?.("the browser ended"));
  return transport;
}

async function inPage(name, request) {
  try {
    return await page.evaluate(([name, request]) => window.ask(name, request), [name, request]);
  } catch (error) {
    const text = String(error.message).replace(/^page\.evaluate: (Error: )?/, "");
    throw new Error(complaint ?? text.split("\n    at ")[0]);
  }
}

if (words[0] === "--facts") {
  try {
    const { process_, ended } = await start(words.slice(1));
    const facts = await inPage("facts", {});
    const providers = ["wasm", ...(facts.webgpu ? ["webgpu"] : [])];
    const runtime = { distribution: "onnxruntime-web", version, browser: browser.version(), providers };
    console.log(JSON.stringify({ ...runtime, node: process.versions.node, ...facts }));
    process_.stdio[3].end();
    await ended;
    process.exit();
  } catch (error) {
    console.error(oneLine(error));
    process.exit(1);
  }
} else {
  await answer(requests);
}
