// Runs a TensorFlow.js graph model in Node, with the very files that the page loads and its wasm backend.
// node run.mjs SCRIPTS MODEL.JSON PICTURES SHAPE COUNTS OUTPUT
//   SCRIPTS   folder of the TensorFlow.js files
//   PICTURES  float32, little endian, each of SHAPE, as "28,28,1"
//   COUNTS    of pictures in each run, as "100,100,1"
//   OUTPUT    written: float32, all logits and then all probabilities
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

const [scripts, modelPath, picturesPath, shapeText, countsText, outputPath] = process.argv.slice(2);

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

const shape = shapeText.split(",").map(Number);
const bytes = fs.readFileSync(picturesPath);
const pictures = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
const size = shape.reduce((a, b) => a * b, 1);
const answers = { logits: [], probabilities: [] };
let start = 0;
for (const count of countsText.split(",").map(Number)) {
  const batch = pictures.subarray(start * size, (start + count) * size);
  tf.tidy(() => {
    const image = tf.tensor(batch, [count, ...shape]);
    const tensors = model.predict({ [model.inputs[0].name.split(":")[0]]: image });
    for (const name of Object.keys(answers)) answers[name].push(Buffer.from(tensors[name].dataSync().slice().buffer));
  });
  start += count;
}
fs.writeFileSync(outputPath, Buffer.concat([...answers.logits, ...answers.probabilities]));
