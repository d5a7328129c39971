// Graph models by TensorFlow.js, on one of its backends.

/* global tf */
const NAMES = { wasm: "WebAssembly", webgl: "WebGL", webgpu: "WebGPU" };
const started = {};

/** Load version `manifest` on `backend`: "wasm", "webgl" or "webgpu". */
export async function load(address, manifest, backend) {
  started[backend] ??= start(backend);
  await started[backend];
  const names = Object.keys(manifest.signature.outputs);
  tf.setBackend(backend);
  const model = await tf.loadGraphModel(address(manifest.serve), { weightUrlConverter: async (file) => address(file) });
  const run = async (inputs) => {
    // Loading another model may have changed it. For one that has started, this takes effect at once.
    tf.setBackend(backend);
    const outputs = tf.tidy(() => {
      const feeds = Object.entries(inputs).map(([name, { data, shape, dtype }]) => [name, tf.tensor(data, shape, dtype)]);
      return [model.execute(Object.fromEntries(feeds), names)].flat();
    });
    // A GPU is waited for; on the CPU nothing is, and a wait would be part of the time.
    const values = backend === "wasm" ? outputs.map((output) => output.dataSync()) : await Promise.all(outputs.map((output) => output.data()));
    tf.dispose(outputs);
    return Object.fromEntries(names.map((name, index) => [name, values[index]]));
  };
  return { run, dispose: () => model.dispose(), runs: `${tf.version_core} on ${NAMES[backend]}` };
}

async function start(backend) {
  if (backend === "wasm") tf.wasm.setWasmPaths("tensorflowjs/");
  else await addScript(`tensorflowjs/tf-backend-${backend}.min.js`);
  if (!(await tf.setBackend(backend))) throw new Error(`this browser cannot run ${NAMES[backend]}`);
  await tf.ready();
}

function addScript(src) {
  return new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src });
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error(`${src} cannot be fetched`)));
    document.head.append(script);
  });
}
