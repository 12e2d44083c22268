// `node node.mjs FOLDER`: a worker with onnxruntime-node, which lies in FOLDER's node_modules; with `--facts` what
// it is.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { codeOf } from "./card.mjs";
import { counted, memory } from "./counters.mjs";
import { Model } from "./model.mjs";
import { answer } from "./protocol.mjs";

const [folder, wish] = process.argv.slice(2);
const load = createRequire(path.join(folder, "package.json"));
const ort = load("onnxruntime-node");
const version = load("onnxruntime-node/package.json").version;

const place = {
  ort,
  zip: load("fflate"),
  read: (file) => fs.readFileSync(file),
  source: async (file) => [file, {}],
  card: async (file) => {
    // In a folder of the job, with the packages that the card has its reader install; the model lies beside the card.
    const own = fs.mkdtempSync(path.resolve("card-"));
    fs.symlinkSync(path.join(folder, "node_modules"), path.join(own, "node_modules"));
    fs.writeFileSync(path.join(own, "card.mjs"), codeOf(fs.readFileSync(file, "utf8")));
    process.chdir(path.dirname(file));
    return import(pathToFileURL(path.join(own, "card.mjs")));
  },
  providers: () => ["cpu"],
};

let model;
const requests = {
  ready: () => ({}),
  load: async (request) => {
    const before = memory().rss_bytes;
    model = await Model.load(request, place);
    const packages = { "onnxruntime-node": version, node: process.versions.node };
    return { ...model.facts, rss_before_bytes: before, packages };
  },
  first_run: (request) => model.first_run(request),
  warm_up: (request) => model.warm_up(request),
  block: (request) => counted(() => model.block(request)),
  memory,
  outputs: async ({ feeds, into }) => {
    fs.writeFileSync(into, await model.outputs({ feeds }));
    return {};
  },
  end_profiling: () => {
    model.sessions[0].endProfiling(); // the library does not tell the file that it wrote
    const { dir, base } = path.parse(model.profile);
    return { path: path.join(dir, fs.readdirSync(dir).find((name) => name.startsWith(base))) };
  },
};

if (wish === "--facts") {
  const facts = { distribution: "onnxruntime-node", version, node: process.versions.node };
  console.log(JSON.stringify({ ...facts, providers: ort.listSupportedBackends().map(({ name }) => name) }));
} else {
  await answer(requests);
}
