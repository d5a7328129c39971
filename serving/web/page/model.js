// The published version in this browser: follows the pointer file, loads what it names with TensorFlow.js.
// A version that does not answer its golden sample here is refused; the one before it goes on.

import { load } from "./tensorflowjs.js";
import { rowsOf, sizeOf, tensors } from "./tensors.js";
import { open } from "./versions.js";

const BATCH = 100;

export class Model {
  label = "TensorFlow.js";
  on = "WebAssembly";
  loaded = true;
  #name;
  #loading = null;
  #served = null;
  #refused = null;

  constructor(name) {
    this.#name = name;
  }

  /** What runs the model, once a version is loaded. */
  get runs() {
    return this.#served?.runs ?? "";
  }

  /**
   * The published version: {version, manifest, address(file), refused}. `refused` says why a later version does not
   * answer in its place ("" where none is refused). Throws an Error that says why none can be had.
   */
  async describe() {
    await this.#follow();
    return { ...this.#served, refused: this.#refused?.message ?? "" };
  }

  /** As `Server.ask`, of the version that is loaded. */
  ask(_signature, inputs) {
    return this.#served.run(inputs);
  }

  /**
   * Answer `count` rows of `inputs`: numbers by input, nested or flat, in the order of the signature's shape.
   * Answers {outputs, version, refused}: an output is an array of `count` arrays.
   * Throws an Error that says what was expected, or why no model can be had.
   */
  async predict(inputs, count) {
    await this.#follow();
    // From here on nothing waits before all runs have begun, so no other call can swap the model away.
    const { run, version, manifest } = this.#served;
    const refused = this.#refused?.message ?? "";
    const values = tensors(manifest.signature, inputs, count);
    const outputs = Object.fromEntries(Object.keys(manifest.signature.outputs).map((name) => [name, []]));
    const parts = [];
    for (let first = 0; first < count; first += BATCH) parts.push(run(rowsOf(values, first, Math.min(first + BATCH, count))));
    for (const answer of await Promise.all(parts)) {
      for (const [name, { shape: [, ...row] }] of Object.entries(manifest.signature.outputs)) {
        const size = sizeOf(row);
        for (let start = 0; start < answer[name].length; start += size) {
          outputs[name].push(Array.from(answer[name].subarray(start, start + size)));
        }
      }
    }
    return { outputs, version, refused };
  }

  async #follow() {
    const version = await this.#published();
    if (this.#served && this.#refused?.version === version) return;
    this.#refused = null;
    if (this.#served?.version === version) return;
    if (this.#loading?.version !== version) {
      const promise = open("tfjs", this.#name, version, (address, manifest) => load(address, manifest, "wasm"));
      this.#loading = { version, promise };
    }
    const loading = this.#loading;
    try {
      const loaded = await loading.promise.catch((error) => {
        if (!this.#served) throw error;
        this.#refused = { version, message: error.message };
      });
      if (!loaded || this.#served === loaded) return;
      this.#served?.dispose();
      this.#served = loaded;
    } finally {
      if (this.#loading === loading) this.#loading = null;
    }
  }

  async #published() {
    const answer = await fetch(`tfjs/${this.#name}/current.json`, { cache: "no-store" }).catch(() => null);
    if (answer?.ok) return (await answer.json()).version;
    // A gateway that restarts is no reason to stop: what is loaded goes on answering.
    if (this.#served) return this.#served.version;
    if (answer?.status === 404) throw new Error(`no version of ${this.#name} is published for the browser yet`);
    throw new Error("the gateway does not answer");
  }
}
