// A model of onnxruntime in JavaScript, in Node and in a page: what `worker.py` calls Model, with its requests.

import { readNpz, writeNpz } from "./npz.mjs";

const MAX_CALLS = 1000; // of one block

export class Model {
  // `place`: {ort, zip, settle_ms, read(path) -> Uint8Array, source(path) -> what a session is made of and its options,
  // card(path) -> what the code of a model card exports, providers(request) -> execution providers}
  static async load(request, place) {
    const model = new Model();
    model.place = place;
    model.workloads = request.workloads;
    model.profile = request.profile;
    model.feeds = {};
    const paths = [request.path].flat();
    const options = {
      executionProviders: place.providers(request),
      intraOpNumThreads: request.threads,
      interOpNumThreads: 1,
      graphOptimizationLevel: "all",
      logSeverityLevel: 4,
      extra: nested(request.settings ?? {}),
    };
    if (request.profile) Object.assign(options, { enableProfiling: true, profileFilePrefix: request.profile });
    const isCard = paths[0].endsWith(".md");
    // From a network or disk: no part of the time.
    const sources = await Promise.all(isCard ? [] : paths.map(place.source));
    const start = performance.now();
    model.sessions = isCard ? [await place.card(paths[0])] : [];
    for (const [source, more] of sources) {
      model.sessions.push(await place.ort.InferenceSession.create(source, { ...options, ...more }));
    }
    model.facts = {
      load_ms: performance.now() - start,
      providers: options.executionProviders,
      threads: request.threads,
      optimization_level: "ORT_ENABLE_ALL",
      settings: request.settings ?? {},
    };
    return model;
  }

  // Milliseconds of the first call on this workload, which plans memory and fills the arena.
  async first_run({ workload }) {
    const arrays = readNpz(await this.place.read(this.workloads[workload]), this.place.zip);
    const names = this.sessions.flatMap((session) => session.inputNames);
    const missing = names.find((name) => !(name in arrays));
    if (missing !== undefined) {
      const has = Object.keys(arrays).join(", ");
      throw new Error(`workload '${workload}' lacks the input '${missing}' (it has ${has})`);
    }
    this.began ??= performance.now();
    this.feeds[workload] = this.sessions.map((session) => this.tensors(session, (name) => arrays[name]));
    return { [workload]: (await this.calls(workload, 1))[0] };
  }

  tensors(session, array) {
    const made = session.inputNames.map((name) => {
      const { type, data, dims } = array(name);
      return [name, new this.place.ort.Tensor(type, data, dims)];
    });
    return Object.fromEntries(made);
  }

  async calls(workload, count) {
    const [feeds, ms] = [this.feeds[workload], []];
    for (let call = 0; call < count; call++) {
      const start = performance.now();
      for (let i = 0; i < feeds.length; i++) await this.sessions[i].run(feeds[i]);
      ms.push(performance.now() - start);
    }
    return ms;
  }

  // Windows of about `block_ms` until two in a row are within 3 % of the one before, in the place's time at least.
  async warm_up({ workload, seconds, block_ms }) {
    const [medians, start] = [[], performance.now()];
    let [calls, count, steady] = [0, 1, 0];
    const unsettled = () => performance.now() - this.began < (this.place.settle_ms ?? 0);
    while (!medians.length || unsettled() || (steady < 2 && performance.now() - start < seconds * 1e3)) {
      medians.push(median(await this.calls(workload, count)));
      calls += count;
      const [before, last] = [medians.at(-2), medians.at(-1)];
      count = Math.max(1, Math.min(MAX_CALLS, Math.ceil(block_ms / Math.max(last, 1e-6))));
      steady = before && Math.abs(last / before - 1) <= 0.03 ? steady + 1 : 0;
    }
    return { calls, stable: steady === 2, ms: medians.at(-1) };
  }

  async block({ workload, count }) {
    await this.calls(workload, 1); // brings the model back into the caches that the others used
    return { ms: await this.calls(workload, count) };
  }

  // What the model gives for each batch of the file `feeds`, as the bytes of a file of the same layout.
  async outputs({ feeds }) {
    const [arrays, given, [session]] = [readNpz(await this.place.read(feeds), this.place.zip), {}, this.sessions];
    const numbers = [...new Set(Object.keys(arrays).map((key) => parseInt(key)))].sort((a, b) => a - b);
    for (const number of numbers) {
      const made = await session.run(this.tensors(session, (name) => arrays[`${number}.${name}`]));
      for (const name of session.outputNames) given[`${number}.${name}`] = made[name];
    }
    return writeNpz(given, this.place.zip);
  }
}

// {"session.intra_op.allow_spinning": "0"} -> {session: {intra_op: {allow_spinning: "0"}}}, as the library asks.
function nested(settings) {
  const root = {};
  for (const [key, value] of Object.entries(settings)) {
    const words = key.split(".");
    const last = words.pop();
    words.reduce((node, word) => (node[word] ??= {}), root)[last] = value;
  }
  return root;
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
