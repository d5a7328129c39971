// .onnx files by ONNX Runtime Web.

// Each bundle finds its wasm file beside it. That with WebGPU is twice as large.
const BUNDLES = { wasm: "ort.wasm.bundle.min.mjs", webgpu: "ort.webgpu.bundle.min.mjs" };
const NAMES = { wasm: "WebAssembly", webgpu: "WebGPU" };

/** Load version `manifest` on the execution provider `provider`: "wasm" or "webgpu". */
export async function load(address, manifest, provider) {
  const ort = await import(`./onnxruntime-web/${BUNDLES[provider]}`);
  // More need a page that is isolated from others (COOP, COEP).
  ort.env.wasm.numThreads = 1;
  const answer = await fetch(address(manifest.serve));
  if (!answer.ok) throw new Error(`${manifest.serve} cannot be fetched: ${answer.status}`);
  const file = new Uint8Array(await answer.arrayBuffer());
  let runs = `${ort.env.versions.web} on ${NAMES[provider]}`;
  const create = (extra) => ort.InferenceSession.create(file, { executionProviders: [provider], logSeverityLevel: 3, extra });
  // Operators that WebGPU lacks run on WebAssembly, and this tells whether any does.
  const session = await create(provider === "wasm" ? {} : { session: { disable_cpu_ep_fallback: "1" } }).catch((error) => {
    if (provider === "wasm") throw error;
    runs += ` and ${NAMES.wasm}`;
    return create({});
  });
  const run = async (inputs) => {
    const feeds = Object.entries(inputs).map(([name, { dtype, data, shape }]) => [name, new ort.Tensor(dtype, data, shape)]);
    const outputs = Object.entries(await session.run(Object.fromEntries(feeds)));
    return Object.fromEntries(await Promise.all(outputs.map(async ([name, output]) => [name, await output.getData()])));
  };
  return { run, dispose: () => session.release(), runs };
}
