// The model in this browser: follows the pointer file, loads what it names, and predicts with TensorFlow.js.

/* global tf */
const BATCH = 100;

export class Model {
  #config;
  #backend = null;
  #loading = null;
  #served = null;

  constructor(config) {
    this.#config = config;
  }

  /**
   * Classify `count` pictures: numbers 0 to 1, nested or flat, in the order [count, height, width, channels].
   * Answers {logits, probabilities, version, milliseconds}, each of the first two an array of `count` arrays.
   * Throws an Error that says what was expected, or why no model can be had.
   */
  async predict(pictures, count) {
    const values = this.#check(pictures, count);
    await this.#follow();
    // From here to the end nothing waits, so no other call can swap the model away.
    const { model, version } = this.#served;
    const [height, width, channels] = this.#config.imageShape;
    const size = height * width * channels;
    const answer = { logits: [], probabilities: [], version, milliseconds: 0 };
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
    if (this.#served?.version === version) return;
    if (this.#loading?.version !== version) this.#loading = { version, promise: this.#load(version) };
    const loading = this.#loading;
    try {
      const model = await loading.promise;
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
    try {
      const model = await tf.loadGraphModel(address("model.json"), {
        weightUrlConverter: async (file) => address(file),
      });
      tf.tidy(() => model.execute({ [this.#config.input]: tf.zeros([1, ...this.#config.imageShape]) }));
      return model;
    } catch (error) {
      throw new Error(`version ${version} of ${this.#config.model} cannot be loaded: ${error.message}`);
    }
  }
}

async function startBackend() {
  tf.wasm.setWasmPaths("tensorflowjs/");
  if (!(await tf.setBackend("wasm"))) throw new Error("this browser cannot run WebAssembly, which the model needs");
  await tf.ready();
}
