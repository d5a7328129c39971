// Runs a TensorFlow.js graph model in Node, with the very files that the page loads and its wasm backend.
// node run.mjs SCRIPTS MODEL.JSON REQUEST.JSON VALUES ANSWERS
//   SCRIPTS   folder of the TensorFlow.js files
//   REQUEST   {"signature": that of the manifest, "counts": rows of each run}
//   VALUES    float32 or int32, little endian: all rows of the first input, then of the next
//   ANSWERS   written: all rows of the first output, then of the next
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import perf_hooks from "node:perf_hooks";
import vm from "node:vm";

// A stack trace would print a whole minified bundle.
process.on("uncaughtException", (error) => {
  console.error(error.message);
  process.exit(1);
});

const [scripts, modelPath, requestPath, valuesPath, answersPath] = process.argv.slice(2);

// As <script> tags do: the bundles find no module system and put themselves on `globalThis.tf`.
Object.assign(globalThis, { require: createRequire(import.meta.url), __dirname: scripts });
Object.assign(globalThis, { fs, path, perf_hooks, require$$4: os });
for (const name of ["tf-core", "tf-backend-cpu", "tf-converter", "tf-backend-wasm"]) {
  const file = path.join(scripts, `${name}.min.js`);
  vm.runInThisContext(fs.readFileSync(file, "utf8"), { filename: file });
}
const { tf } = globalThis;
tf.wasm.setWasmPaths(scripts + path.sep);
if (!(await tf.setBackend("wasm"))) throw new Error("TensorFlow.js could not start its wasm backend");

const json = JSON.parse(fs.readFileSync(modelPath, "utf8"));
const files = json.weightsManifest.flatMap((group) => group.paths);
const weights = Buffer.concat(files.map((file) => fs.readFileSync(path.join(path.dirname(modelPath), file))));
const model = await tf.loadGraphModel({
  load: async () => ({
    modelTopology: json.modelTopology,
    signature: json.signature,
    userDefinedMetadata: json.userDefinedMetadata,
    weightSpecs: json.weightsManifest.flatMap((group) => group.weights),
    weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.byteLength),
  }),
});

const { signature, counts } = JSON.parse(fs.readFileSync(requestPath, "utf8"));
const bytes = fs.readFileSync(valuesPath);
const total = counts.reduce((a, b) => a + b, 0);
let offset = bytes.byteOffset;
const inputs = Object.entries(signature.inputs).map(([name, { dtype, shape: [, ...row] }]) => {
  const size = row.reduce((a, b) => a * b, 1);
  const content = bytes.buffer.slice(offset, (offset += 4 * total * size));
  return { name, dtype, row, size, values: dtype === "int32" ? new Int32Array(content) : new Float32Array(content) };
});
const outputs = Object.keys(signature.outputs);
const answers = outputs.map(() => []);
let start = 0;
for (const count of counts) {
  tf.tidy(() => {
    const tensors = inputs.map(({ name, dtype, row, size, values }) => [
      name,
      tf.tensor(values.subarray(start * size, (start + count) * size), [count, ...row], dtype),
    ]);
    const answered = model.execute(Object.fromEntries(tensors), outputs);
    [answered].flat().forEach((tensor, i) => answers[i].push(Buffer.from(tensor.dataSync().slice().buffer)));
  });
  start += count;
}
fs.writeFileSync(answersPath, Buffer.concat(answers.flat()));
