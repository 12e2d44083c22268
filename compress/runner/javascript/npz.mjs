// NumPy's .npz: arrays as {type, dims, data}, by the names of onnxruntime's types. `zip` is the library fflate.

const TYPES = {
  f2: ["float16", Uint16Array], f4: ["float32", Float32Array], f8: ["float64", Float64Array],
  i1: ["int8", Int8Array], i2: ["int16", Int16Array], i4: ["int32", Int32Array], i8: ["int64", BigInt64Array],
  u1: ["uint8", Uint8Array], u2: ["uint16", Uint16Array], u4: ["uint32", Uint32Array],
  u8: ["uint64", BigUint64Array], b1: ["bool", Uint8Array],
};
const MAGIC = [0x93, ...new TextEncoder().encode("NUMPY")];

export function readNpz(bytes, zip) {
  const files = Object.entries(zip.unzipSync(bytes));
  return Object.fromEntries(files.map(([name, file]) => [name.replace(/\.npy$/, ""), readNpy(file, name)]));
}

export function writeNpz(arrays, zip) {
  const files = Object.entries(arrays).map(([name, array]) => [`${name}.npy`, writeNpy(array)]);
  return zip.zipSync(Object.fromEntries(files), { level: 0 });
}

function readNpy(file, name) {
  if (MAGIC.some((byte, i) => file[i] !== byte)) throw new Error(`${name} is no array of numpy`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [start, size] = file[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder().decode(file.subarray(start, start + size));
  const descr = /'descr': '([^']*)'/.exec(header)?.[1] ?? "a record";
  const [type, Kind] = TYPES[descr.slice(1)] ?? [];
  if (!type || descr.startsWith(">")) throw new Error(`${name} holds ${descr}, which no input of a model takes`);
  const dims = [.../'shape': \(([^)]*)\)/.exec(header)[1].matchAll(/\d+/g)].map(Number);
  const data = new Kind(file.slice(start + size).buffer);
  return { type, dims, data: /'fortran_order': True/.test(header) ? rowMajor(data, dims) : data };
}

function rowMajor(data, dims) {
  const ordered = new data.constructor(data.length);
  const steps = dims.map((_, axis) => dims.slice(0, axis).reduce((left, right) => left * right, 1));
  const index = dims.map(() => 0);
  for (let i = 0; i < data.length; i++) {
    ordered[i] = data[index.reduce((sum, each, axis) => sum + each * steps[axis], 0)];
    for (let axis = dims.length - 1; axis >= 0 && ++index[axis] === dims[axis]; axis--) index[axis] = 0;
  }
  return ordered;
}

function writeNpy({ type, dims, data }) {
  const descr = Object.keys(TYPES).find((key) => TYPES[key][0] === type);
  if (!descr) throw new Error(`no array of numpy holds ${type}`);
  const order = descr.endsWith("1") ? "|" : "<";
  const shape = dims.length === 1 ? `${dims[0]},` : dims.join(", ");
  const said = `{'descr': '${order}${descr}', 'fortran_order': False, 'shape': (${shape}), }`;
  const header = said.padEnd(Math.ceil((said.length + 11) / 64) * 64 - 11) + "\n";
  const file = new Uint8Array(10 + header.length + data.byteLength);
  file.set([...MAGIC, 1, 0, header.length & 255, header.length >> 8]);
  file.set(new TextEncoder().encode(header), 10);
  file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + header.length);
  return file;
}
