// Copies what the page loads out of node_modules.
// node collect.mjs DESTINATION [FOLDER...]     each of FOLDERS (by default all) becomes a folder of DESTINATION
import fs from "node:fs";
import path from "node:path";

const FOLDERS = {
  tensorflowjs: [
    "@tensorflow/tfjs-core/dist/tf-core.min.js",
    "@tensorflow/tfjs-converter/dist/tf-converter.min.js",
    "@tensorflow/tfjs-backend-cpu/dist/tf-backend-cpu.min.js",
    "@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.min.js",
    "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm",
    "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm",
    "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm",
    "@tensorflow/tfjs-backend-webgl/dist/tf-backend-webgl.min.js",
    "@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.min.js",
  ],
  // A browser takes the one with relaxed SIMD or, as Safari does, the compatible one.
  litertjs: [
    "@litertjs/core/dist/index.js",
    "@litertjs/wasm-utils/dist/bundle.js",
    "@litertjs/core/wasm/litert_wasm_internal.js",
    "@litertjs/core/wasm/litert_wasm_internal.wasm",
    "@litertjs/core/wasm/litert_wasm_compat_internal.js",
    "@litertjs/core/wasm/litert_wasm_compat_internal.wasm",
  ],
  // The first pair runs wasm alone, the second one WebGPU, too.
  "onnxruntime-web": [
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm",
  ],
};

const [destination, ...chosen] = process.argv.slice(2);
for (const folder of chosen.length ? chosen : Object.keys(FOLDERS)) {
  fs.mkdirSync(path.join(destination, folder), { recursive: true });
  for (const file of FOLDERS[folder]) {
    const copy = path.join(destination, folder, path.basename(file));
    fs.copyFileSync(path.join("node_modules", file), copy);
    fs.chmodSync(copy, 0o644);
  }
}
// A browser finds no package by its name, and an import map would be a script within the page.
const index = path.join(destination, "litertjs", "index.js");
if (fs.existsSync(index)) {
  fs.writeFileSync(index, fs.readFileSync(index, "utf8").replace('"@litertjs/wasm-utils"', '"./bundle.js"'));
}
