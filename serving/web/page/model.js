// The model in this browser: follows the pointer file, loads what it names, and predicts with TensorFlow.js.
// A version that does not answer its golden sample here is refused; the one before it goes on.

/* global tf */
const BATCH = 100;

export class Model {
  #config;
  #backend = null;
  #loading = null;
  #served = null;
  #refused = null;

  constructor(config) {
    this.#config = config;
  }

  /**
   * Classify `count` pictures: numbers 0 to 1, nested or flat, in the order [count, height, width, channels].
   * Answers {logits, probabilities, version, milliseconds, refused}: each of the first two is an array of `count`
   * arrays, and `refused` says why a later version does not answer in its place ("" where none is refused).
   * Throws an Error that says what was expected, or why no model can be had.
   */
  async predict(pictures, count) {
    const values = this.#check(pictures, count);
    await this.#follow();
    // From here to the end nothing waits, so no other call can swap the model away.
    const { model, version } = this.#served;
    const [height, width, channels] = this.#config.imageShape;
    const size = height * width * channels;
    const refused = this.#refused?.message ?? "";
    const answer = { logits: [], probabilities: [], version, milliseconds: 0, refused };
    const start = performance.now();
    for (let first = 0; first < count; first += BATCH) {
      const number = Math.min(BATCH, count - first);
      tf.tidy(() => {
        const part = values.subarray(first * size, (first + number) * size);
        const image = tf.tensor4d(part, [number, height, width, channels]);
        const names = ["logits", "probabilities"];
        const tensors = model.execute({ [this.#config.input]: image }, names);
        names.forEach((name, index) => answer[name].push(...tensors[index].arraySync()));
      });
    }
    answer.milliseconds = performance.now() - start;
    return answer;
  }

  #check(pictures, count) {
    const [height, width, channels] = this.#config.imageShape;
    if (!Number.isInteger(count) || count < 1) {
      throw new Error(`expected a whole number of pictures, at least 1, got ${count}`);
    }
    const flat = Array.isArray(pictures) ? pictures.flat(Infinity) : pictures;
    const expected = count * height * width * channels;
    if (flat?.length !== expected) {
      const shape = [count, height, width, channels].join(", ");
      throw new Error(`expected ${expected} numbers for the shape [${shape}], got ${flat?.length ?? typeof flat}`);
    }
    const values = Float32Array.from(flat);
    const wrong = values.findIndex((value) => !Number.isFinite(value));
    if (wrong >= 0) throw new Error(`expected finite numbers, got ${flat[wrong]} at position ${wrong}`);
    return values;
  }

  async #follow() {
    const version = await this.#published();
    if (this.#served && this.#refused?.version === version) return;
    this.#refused = null;
    if (this.#served?.version === version) return;
    if (this.#loading?.version !== version) this.#loading = { version, promise: this.#load(version) };
    const loading = this.#loading;
    try {
      const model = await loading.promise.catch((error) => {
        if (!this.#served) throw error;
        this.#refused = { version, message: error.message };
      });
      if (!model) return;
      if (this.#served?.model === model) return;
      this.#served?.model.dispose();
      this.#served = { version, model };
    } finally {
      if (this.#loading === loading) this.#loading = null;
    }
  }

  async #published() {
    const name = this.#config.model;
    const answer = await fetch(`tfjs/${name}/current.json`, { cache: "no-store" }).catch(() => null);
    if (answer?.ok) return (await answer.json()).version;
    // A gateway that restarts is no reason to stop: what is loaded goes on answering.
    if (this.#served) return this.#served.version;
    if (answer?.status === 404) throw new Error(`no version of ${name} is published for the browser yet`);
    throw new Error("the gateway does not answer");
  }

  async #load(version) {
    this.#backend ??= startBackend();
    await this.#backend;
    const folder = `tfjs/${this.#config.model}/${version}`;
    // Versions are cached for good, but after a start from scratch there is another version 1: the digests in
    // the manifest tell the two apart.
    const manifest = await fetch(`${folder}/manifest.json`, { cache: "no-store" });
    const digests = manifest.ok ? (await manifest.json()).files : {};
    const address = (file) => `${folder}/${file}${digests[file] ? `?sha256=${digests[file]}` : ""}`;
    let model = null;
    try {
      model = await tf.loadGraphModel(address("model.json"), {
        weightUrlConverter: async (file) => address(file),
      });
      tf.tidy(() => model.execute({ [this.#config.input]: tf.zeros([1, ...this.#config.imageShape]) }));
      if (digests["golden.json"]) await checkGolden(model, address("golden.json"));
      return model;
    } catch (error) {
      model?.dispose();
      throw new Error(`version ${version} of ${this.#config.model} cannot be loaded: ${error.message}`);
    }
  }
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
