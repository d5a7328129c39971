// The other targets, asked through the gateway under /api/<target>/.

const MILLISECONDS = 15_000;
const DATATYPES = { float32: "FP32", int32: "INT32" };

// How each protocol is asked for one row, and how its answer gives the outputs by name, flat.
const rows = {
  body: (inputs) => {
    const row = Object.fromEntries(Object.entries(inputs).map(([name, { data, shape }]) => [name, nested(data, shape.slice(1))]));
    const only = Object.keys(row).length === 1;
    return { instances: [only ? Object.values(row)[0] : row] };
  },
  outputs: ({ outputs }, { predictions: [row] }) => {
    const names = Object.keys(outputs);
    // TensorFlow Serving leaves out the name of an only output.
    const named = names.length === 1 && !(names[0] in Object(row)) ? { [names[0]]: row } : row;
    return Object.fromEntries(names.map((name) => [name, named[name].flat(Infinity)]));
  },
};
const PROTOCOLS = {
  rows: { ...rows, path: (model) => `v1/models/${model}:predict` },
  torchserve: { ...rows, path: (model) => `predictions/${model}` },
  "open-inference": {
    path: (model) => `v2/models/${model}/infer`,
    body: (inputs) => ({
      inputs: Object.entries(inputs).map(([name, { dtype, shape, data }]) => {
        return { name, shape, datatype: DATATYPES[dtype], data: Array.from(data) };
      }),
    }),
    outputs: (_signature, answer) => Object.fromEntries(answer.outputs.map(({ name, data }) => [name, data])),
  },
};

/** A target that is asked through the gateway. */
export class Server {
  loaded = true;
  #target;
  #protocol;
  #model;

  constructor(target, { label, protocol }, model) {
    Object.assign(this, { label, runs: "" });
    this.#target = target;
    this.#model = model;
    this.#protocol = PROTOCOLS[protocol];
  }

  /**
   * The outputs for one row, by name, flat. `runs` then says what answered, where the target's name does not.
   * Throws an Error that is a sentence.
   * @param {import("./tensors.js").Signature} signature
   * @param {Object<string, import("./tensors.js").Tensor>} inputs
   */
  async ask(signature, inputs) {
    let response;
    let answer;
    try {
      response = await fetch(`api/${this.#target}/${this.#protocol.path(this.#model)}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(this.#protocol.body(inputs)),
        signal: AbortSignal.timeout(MILLISECONDS),
      });
      answer = await response.json().catch(() => null);
    } catch (error) {
      throw new Error(error.name === "TimeoutError" ? "did not answer in time" : "the gateway does not answer");
    }
    if ([502, 503, 504].includes(response.status)) throw new Error("not answering");
    if (!response.ok) throw new Error(`answered ${response.status}: ${answer?.error ?? answer?.message ?? ""}`);
    this.runs = runs(this.#target, response.headers);
    try {
      return this.#protocol.outputs(signature, answer);
    } catch {
      throw new Error("answered with something that is no prediction");
    }
  }
}

function runs(target, headers) {
  const standIn = target === "tf-serving" && headers.get("x-served-by") === "tandem";
  return standIn ? "Tandem's stand-in" : (headers.get("x-runtime") ?? "");
}

function nested(values, shape) {
  if (!shape.length) return values[0];
  if (shape.length === 1) return Array.from(values);
  const size = values.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) => nested(values.slice(i * size, (i + 1) * size), shape.slice(1)));
}
