// .tflite files by LiteRT.js.

import { rowsOf } from "./tensors.js";
import { fixRow } from "./tflite.js";

const NAMES = { wasm: "WebAssembly", webgpu: "WebGPU" };
let started = null;
let complaint = "";

/** Load version `manifest` on `accelerator`: "wasm" or "webgpu". */
export async function load(address, manifest, accelerator) {
  started ??= start();
  const { loadAndCompile, Tensor } = await started;
  const answer = await fetch(address(manifest.serve));
  if (!answer.ok) throw new Error(`${manifest.serve} cannot be fetched: ${answer.status}`);
  const file = await answer.arrayBuffer();
  fixRow(file);
  // In half precision, which is the default on a GPU, no golden sample would be met.
  const options = { accelerator, cpuOptions: { numThreads: 1 }, gpuOptions: { precision: "fp32" } };
  const model = await loadAndCompile(new Uint8Array(file), options).catch((error) => {
    throw new Error(complaint || error.message || error);
  });
  const runRow = async (inputs) => {
    const feeds = Object.entries(inputs).map(([name, { data, shape }]) => [name, new Tensor(data, shape)]);
    const outputs = await model.run(Object.fromEntries(feeds));
    const values = Object.entries(outputs).map(async ([name, output]) => [name, await output.data()]);
    const answered = Object.fromEntries(await Promise.all(values));
    for (const tensor of [...feeds.map(([, feed]) => feed), ...Object.values(outputs)]) tensor.delete();
    return answered;
  };
  return { run: (inputs) => rowByRow(inputs, runRow), dispose: () => model.delete(), runs: whatRuns(model) };
}

/** Operators that a GPU lacks are left to WebAssembly, some or all. */
function whatRuns({ options: { accelerator }, isFullyAccelerated }) {
  const partly = accelerator === "webgpu" && !isFullyAccelerated;
  return `on ${NAMES[accelerator]}${partly ? ` and ${NAMES.wasm}` : ""}`;
}

/** The files take one row. */
async function rowByRow(inputs, runRow) {
  const [count] = Object.values(inputs)[0].shape;
  if (count === 1) return runRow(inputs);
  const answers = [];
  for (let row = 0; row < count; row++) answers.push(await runRow(rowsOf(inputs, row, row + 1)));
  const joined = (name) => answers.flatMap((answer) => Array.from(answer[name]));
  return Object.fromEntries(Object.keys(answers[0]).map((name) => [name, joined(name)]));
}

async function start() {
  const module = await import("./litertjs/index.js");
  // It tells the console what it does, and an exception less than what it has told before.
  const printErr = (line) => {
    if (line.startsWith("ERROR")) complaint = line;
    if (!/^(INFO|WARNING|VERBOSE)/.test(line)) console.warn(line);
  };
  self.Module = { printErr };
  await module.loadLiteRt("litertjs/");
  return module;
}
