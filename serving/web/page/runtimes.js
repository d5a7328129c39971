// What runs models in this browser. TensorFlow.js on WebAssembly is there from the start; the others are large, and are
// loaded when they are asked for.

import { open } from "./versions.js";

const CHOICES = [
  { label: "TensorFlow.js", on: "WebGL", target: "tfjs", module: "tensorflowjs", backend: "webgl" },
  { label: "TensorFlow.js", on: "WebGPU", target: "tfjs", module: "tensorflowjs", backend: "webgpu" },
  { label: "LiteRT.js", on: "WebAssembly", target: "litert", module: "litertjs", backend: "wasm" },
  { label: "LiteRT.js", on: "WebGPU", target: "litert", module: "litertjs", backend: "webgpu" },
  { label: "ONNX Runtime Web", on: "WebAssembly", target: "onnxruntime", module: "onnxruntime", backend: "wasm" },
  { label: "ONNX Runtime Web", on: "WebGPU", target: "onnxruntime", module: "onnxruntime", backend: "webgpu" },
];

/** One that is loaded by a click. */
export class Runtime {
  #choice;
  #model;
  #opened = null;

  constructor(choice, model) {
    this.#choice = choice;
    this.#model = model;
    Object.assign(this, { label: choice.label, on: choice.on, runs: `on ${choice.on}`, loaded: false });
  }

  /** Fetch the runtime and the version that the page has. Throws an Error that says why it cannot be had. */
  async load(version) {
    const { module, target, backend } = this.#choice;
    const { load } = await import(`./${module}.js`);
    const opened = await open(target, this.#model, version, (address, manifest) => load(address, manifest, backend));
    this.#opened?.dispose();
    this.#opened = opened;
    this.runs = opened.runs;
    this.loaded = true;
  }

  /** Load another version, where the page has another. */
  async follow(version) {
    if (this.loaded && this.#opened.version !== version) await this.load(version);
  }

  /** As `Server.ask`. */
  ask(_signature, inputs) {
    return this.#opened.run(inputs);
  }
}

/** Those that this browser may have. */
export async function runtimes(model) {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return CHOICES.filter(({ backend }) => backend !== "webgpu" || adapter).map((choice) => new Runtime(choice, model));
}
