// The other targets, asked through the gateway under /api/<target>/.

const MILLISECONDS = 15_000;

// How each protocol is asked for one picture, and where its answer has the probabilities.
const rows = {
  body: (config, values) => ({ instances: [nested(values, config.imageShape)] }),
  probabilities: (answer) => answer.predictions[0].probabilities,
};
const PROTOCOLS = {
  rows: { ...rows, path: (config) => `v1/models/${config.model}:predict` },
  torchserve: { ...rows, path: (config) => `predictions/${config.model}` },
  "open-inference": {
    path: (config) => `v2/models/${config.model}/infer`,
    body: (config, values) => ({
      inputs: [
        { name: config.input, shape: [1, ...config.imageShape], datatype: "FP32", data: Array.from(values) },
      ],
    }),
    probabilities: (answer) => answer.outputs.find((output) => output.name === "probabilities").data,
  },
};

/**
 * Ask `target` for one picture: {probabilities, milliseconds, runs}. `runs` says what answered, where the target's name
 * does not. Throws an Error that is a sentence.
 */
export async function ask(config, target, values) {
  const protocol = PROTOCOLS[config.targets[target].protocol];
  const start = performance.now();
  let response;
  let answer;
  try {
    response = await fetch(`api/${target}/${protocol.path(config)}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(protocol.body(config, values)),
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
    return { probabilities: protocol.probabilities(answer), milliseconds, runs: runs(target, response.headers) };
  } catch {
    throw new Error("answered with something that is no prediction");
  }
}

function runs(target, headers) {
  const standIn = target === "tf-serving" && headers.get("x-served-by") === "tandem";
  return standIn ? "Tandem's stand-in" : (headers.get("x-runtime") ?? "");
}

function nested(values, [height, width, channels]) {
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => {
      const start = (y * width + x) * channels;
      return Array.from(values.slice(start, start + channels));
    }),
  );
}
