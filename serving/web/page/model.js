// The model in this browser: follows the pointer file, loads what it names, and predicts with TensorFlow.js.
// A version that does not answer its golden sample here is refused; the one before it goes on.

/* global tf */
const BATCH = 100;

export class Model {
  #name;
  #backend = null;
  #loading = null;
  #served = null;
  #refused = null;

  constructor(name) {
    this.#name = name;
  }

  /** The published version: {version, manifest, address(file)}. Throws an Error that says why none can be had. */
  async describe() {
    await this.#follow();
    return this.#served;
  }

  /**
   * Answer `count` rows of `inputs`: numbers by input, nested or flat, in the order of the signature's shape.
   * Answers {outputs, version, milliseconds, refused}: an output is an array of `count` arrays, and `refused` says why a
   * later version does not answer in its place ("" where none is refused).
   * Throws an Error that says what was expected, or why no model can be had.
   */
  async predict(inputs, count) {
    await this.#follow();
    // From here to the end nothing waits, so no other call can swap the model away.
    const { model, version, manifest } = this.#served;
    const values = check(manifest.signature.inputs, inputs, count);
    const names = Object.keys(manifest.signature.outputs);
    const outputs = Object.fromEntries(names.map((name) => [name, []]));
    const answer = { outputs, version, milliseconds: 0, refused: this.#refused?.message ?? "" };
    const start = performance.now();
    for (let first = 0; first < count; first += BATCH) {
      const rows = Math.min(BATCH, count - first);
      tf.tidy(() => {
        const feeds = values.map(({ name, dtype, row, size, numbers }) => {
          const part = numbers.subarray(first * size, (first + rows) * size);
          return [name, tf.tensor(part, [rows, ...row], dtype)];
        });
        const tensors = [model.execute(Object.fromEntries(feeds), names)].flat();
        names.forEach((name, index) => answer.outputs[name].push(...tensors[index].arraySync()));
      });
    }
    answer.milliseconds = performance.now() - start;
    return answer;
  }

  async #follow() {
    const version = await this.#published();
    if (this.#served && this.#refused?.version === version) return;
    this.#refused = null;
    if (this.#served?.version === version) return;
    if (this.#loading?.version !== version) this.#loading = { version, promise: this.#load(version) };
    const loading = this.#loading;
    try {
      const loaded = await loading.promise.catch((error) => {
        if (!this.#served) throw error;
        this.#refused = { version, message: error.message };
      });
      if (!loaded || this.#served?.model === loaded.model) return;
      this.#served?.model.dispose();
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

  async #load(version) {
    this.#backend ??= startBackend();
    await this.#backend;
    const folder = `tfjs/${this.#name}/${version}`;
    let model = null;
    try {
      // Versions are cached for good, but after a start from scratch there is another version 1: the digests in
      // the manifest tell the two apart.
      const answer = await fetch(`${folder}/manifest.json`, { cache: "no-store" });
      if (!answer.ok) throw new Error("it has no manifest.json");
      const manifest = await answer.json();
      const digests = manifest.files;
      const address = (file) => `${folder}/${file}${digests[file] ? `?sha256=${digests[file]}` : ""}`;
      model = await tf.loadGraphModel(address("model.json"), {
        weightUrlConverter: async (file) => address(file),
      });
      const zeros = Object.entries(manifest.signature.inputs).map(([name, { dtype, shape }]) => [
        name,
        () => tf.zeros([1, ...shape.slice(1)], dtype),
      ]);
      tf.tidy(() => model.execute(Object.fromEntries(zeros.map(([name, make]) => [name, make()]))));
      if (digests["golden.json"]) await checkGolden(model, address("golden.json"));
      return { version, model, manifest, address };
    } catch (error) {
      model?.dispose();
      throw new Error(`version ${version} of ${this.#name} cannot be loaded: ${error.message}`);
    }
  }
}

function check(signature, inputs, count) {
  if (!Number.isInteger(count) || count < 1) {
    throw new Error(`expected a whole number of rows, at least 1, got ${count}`);
  }
  return Object.entries(signature).map(([name, { dtype, shape: [, ...row] }]) => {
    const given = inputs?.[name];
    const flat = Array.isArray(given) ? given.flat(Infinity) : given;
    const size = row.reduce((a, b) => a * b, 1);
    if (flat?.length !== count * size) {
      const shape = [count, ...row].join(", ");
      const found = flat?.length ?? typeof flat;
      throw new Error(`${name}: expected ${count * size} numbers for the shape [${shape}], got ${found}`);
    }
    const right = dtype === "int32" ? (value) => (value | 0) === value : Number.isFinite;
    const wrong = flat.findIndex((value) => !right(value));
    if (wrong >= 0) {
      const expected = dtype === "int32" ? "whole numbers of 32 bits" : "finite numbers";
      throw new Error(`${name}: expected ${expected}, got ${flat[wrong]} at position ${wrong}`);
    }
    return { name, dtype, row, size, numbers: (dtype === "int32" ? Int32Array : Float32Array).from(flat) };
  });
}

async function checkGolden(model, address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`its golden sample cannot be fetched: ${answer.status}`);
  const { inputs, outputs, tolerance } = await answer.json();
  const names = Object.keys(outputs);
  const answers = tf.tidy(() => {
    const tensor = ({ data, shape, dtype }) => tf.tensor(decode(data, dtype), shape, dtype);
    const feeds = Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, tensor(value)]));
    return [model.execute(feeds, names)].flat().map((output) => output.dataSync());
  });
  names.forEach((name, index) => {
    const expected = decode(outputs[name].data, outputs[name].dtype);
    const differences = expected.map((value, place) => Math.abs(answers[index][place] - value));
    const difference = differences.reduce((most, value) => (value > most || Number.isNaN(value) ? value : most), 0);
    const limit = tolerance * expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    if (!(difference <= limit)) {
      const [found, allowed] = [difference, limit].map((figure) => figure.toPrecision(3));
      const told = `${name} differs by ${found} from the source framework's answer, the limit is ${allowed}`;
      throw new Error(`golden sample: ${told}`);
    }
  });
}

function decode(data, dtype) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new { float32: Float32Array, int32: Int32Array }[dtype](bytes.buffer);
}

async function startBackend() {
  tf.wasm.setWasmPaths("tensorflowjs/");
  if (!(await tf.setBackend("wasm"))) throw new Error("this browser cannot run WebAssembly, which the model needs");
  await tf.ready();
}
