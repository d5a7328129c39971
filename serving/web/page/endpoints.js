// The other targets, asked through the gateway under /api/<target>/.

const MILLISECONDS = 15_000;
const DATATYPES = { float32: "FP32", int32: "INT32" };

// How each protocol is asked for one row, and how its answer gives the outputs by name, flat.
const rows = {
  body: ({ inputs }, values) => {
    const row = Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [name, nested(values[name], shape.slice(1))]));
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
    body: ({ inputs }, values) => ({
      inputs: Object.entries(inputs).map(([name, { dtype, shape }]) => ({
        name,
        shape: [1, ...shape.slice(1)],
        datatype: DATATYPES[dtype],
        data: Array.from(values[name]),
      })),
    }),
    outputs: (_signature, answer) => Object.fromEntries(answer.outputs.map(({ name, data }) => [name, data])),
  },
};

/**
 * Ask `target` for one row: {outputs, milliseconds, runs}. `runs` says what answered, where the target's name does not.
 * Throws an Error that is a sentence.
 */
export async function ask(config, signature, target, values) {
  const protocol = PROTOCOLS[config.targets[target].protocol];
  const start = performance.now();
  let response;
  let answer;
  try {
    response = await fetch(`api/${target}/${protocol.path(config.model)}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(protocol.body(signature, values)),
      signal: AbortSignal.timeout(MILLISECONDS),
    });
    answer = await response.json().catch(() => null);
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "did not answer in time" : "the gateway does not answer");
  }
  if ([502, 503, 504].includes(response.status)) throw new Error("not answering");
  if (!response.ok) throw new Error(`answered ${response.status}: ${answer?.error ?? answer?.message ?? ""}`);
  const milliseconds = performance.now() - start;
  try {
    return { outputs: protocol.outputs(signature, answer), milliseconds, runs: runs(target, response.headers) };
  } catch {
    throw new Error("answered with something that is no prediction");
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
