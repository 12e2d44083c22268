// Names of the files beside an ONNX graph that hold its weights. Numbers are those of onnx.proto: it is walked, not
// read, since a graph may be of gigabytes.

const GRAPH = 7; // of a model
const INSIDE = {
  graph: { 1: "node", 5: "tensor", 15: "sparse" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse" },
  sparse: { 1: "tensor", 2: "tensor" },
  tensor: { 13: "entry" },
  model: { [GRAPH]: "graph", 25: "function" },
  function: { 7: "node" },
};

export function externalFiles(bytes) {
  const found = new Set();
  walk(bytes, "model", found);
  return [...found];
}

function walk(bytes, kind, found) {
  for (const [field, part] of fields(bytes)) {
    const inside = INSIDE[kind][field];
    if (inside === "entry") {
      const [key, value] = [...fields(part)].map(([, text]) => new TextDecoder().decode(text));
      if (key === "location") found.add(value);
    } else if (inside) {
      walk(part, inside, found);
    }
  }
}

// [number, bytes] of each field of a message that has bytes.
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let [value, factor] = [0, 1];
    for (;;) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("protobuf parsing failed: the file ends too early");
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const size = varint();
      yield [Math.floor(tag / 8), bytes.subarray(at, (at += size))];
    } else throw new Error(`Protobuf parsing failed: no field is of the wire type ${kind}`);
  }
}
