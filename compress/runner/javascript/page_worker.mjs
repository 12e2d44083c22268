// In a worker of the page: a model of onnxruntime-web, which answers what `page.mjs` hands on.

import * as zip from "/modules/fflate/esm/browser.js";
import { codeOf } from "./card.mjs";
import { externalFiles } from "./external.mjs";
import { Model } from "./model.mjs";

const WEBGPU = "WebGpuExecutionProvider"; // as a trace names it
let [ort, model] = [];
const said = []; // by the runtime, which keeps a way to the console from its start; a trace ends up there
const log = console.log;
console.log = (...words) => (model?.profile ? said.push(words.join(" ")) : log(...words));

async function read(path) {
  const response = await fetch(`/file?${new URLSearchParams({ path })}`);
  if (!response.ok) throw new Error(await response.text());
  return new Uint8Array(await response.arrayBuffer());
}

async function write(path, body) {
  const response = await fetch(`/file?${new URLSearchParams({ path })}`, { method: "PUT", body });
  if (!response.ok) throw new Error(await response.text());
}

// The bytes of a graph, and those of the files beside it that hold its weights.
async function source(path) {
  const [graph, folder] = [await read(path), path.slice(0, path.lastIndexOf("/") + 1)];
  const files = externalFiles(graph).map(async (name) => ({ path: name, data: await read(folder + name) }));
  return [graph, { externalData: await Promise.all(files) }];
}

// Of the card at this path, which names packages by their names: here, as a bundler does, by where their files are.
async function card(path) {
  const modules = `${location.origin}/modules`;
  const { exports } = await (await fetch(`${modules}/onnxruntime-web/package.json`)).json();
  const code = codeOf(new TextDecoder().decode(await read(path)));
  const found = code.replace(/from "onnxruntime-web(\/\w+)?"/, (_, part) => {
    const file = exports[`.${part ?? ""}`].import.default;
    return `from "${modules}/onnxruntime-web/${file.replace("./", "")}"`;
  });
  return import(URL.createObjectURL(new Blob([found], { type: "text/javascript" })));
}

const place = {
  settle_ms: 1500, // until the browser has compiled what runs often for good: on its own threads, which take our cores
  get ort() {
    return ort;
  },
  zip,
  read,
  source,
  card,
  providers: ({ provider }) => [provider === WEBGPU ? "webgpu" : "wasm"],
};

const requests = {
  load: async (request) => {
    if (request.threads > 1 && !crossOriginIsolated) {
      throw new Error("this browser gives the page no threads (crossOriginIsolated is false): target.threads=1");
    }
    const bundle = request.provider === WEBGPU ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
    ort = await import(`/modules/onnxruntime-web/dist/${bundle}`);
    ort.env.wasm.numThreads = request.threads;
    model = await Model.load(request, place);
    return model.facts;
  },
  first_run: (request) => model.first_run(request),
  warm_up: (request) => model.warm_up(request),
  block: (request) => model.block(request),
  outputs: async ({ feeds, into }) => {
    await write(into, await model.outputs({ feeds }));
    return {};
  },
  end_profiling: async ({ into }) => {
    said.length = 0;
    model.sessions[0].endProfiling();
    await write(into, said.join("\n"));
    return { path: into };
  },
  facts: async () => ({
    crossOriginIsolated,
    hardware_concurrency: navigator.hardwareConcurrency,
    simd: WebAssembly.validate(program(253, 15, 253, 98)),
    relaxed_simd: WebAssembly.validate(program(253, 15, 65, 2, 253, 15, 65, 3, 253, 15, 253, 147, 2)),
    webgpu: await adapter(),
  }),
};

// A WebAssembly module of one function that pushes an integer and then does `code`.
function program(...code) {
  const body = [0, 65, 1, ...code, 11];
  const type = [1, 5, 1, 96, 0, 1, 123]; // () -> v128
  return Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, ...type, 3, 2, 1, 0, 10, body.length + 2, 1, body.length, ...body]);
}

// What the browser's GPU is; null where it has none for pages.
async function adapter() {
  const found = await navigator.gpu?.requestAdapter();
  if (!found) return null;
  const { vendor, architecture, device, description } = found.info;
  return [vendor, architecture, device, description].filter(Boolean).join(" ") || "unnamed";
}

onmessage = async ({ data: { name, request } }) => {
  try {
    postMessage({ reply: await requests[name](request) });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};
