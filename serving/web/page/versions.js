// A published version, opened in this browser.

import { checkGolden } from "./tensors.js";

/**
 * Load a version's artifact of `target` with `load` and ask it for its golden sample.
 * Answers {version, manifest, address(file), ...servable}. Throws an Error that says why it cannot be had.
 * @param {(address: (file: string) => string, manifest: Object) => Promise<import("./tensors.js").Servable>} load
 */
export async function open(target, model, version, load) {
  const folder = `${target}/${model}/${version}`;
  let servable = null;
  try {
    // Versions are cached for good, but after a start from scratch there is another version 1: the digests in
    // the manifest tell the two apart.
    const answer = await fetch(`${folder}/manifest.json`, { cache: "no-store" });
    if (!answer.ok) throw new Error("it has no manifest.json");
    const manifest = await answer.json();
    const digests = manifest.files;
    const address = (file) => `${folder}/${file}${digests[file] ? `?sha256=${digests[file]}` : ""}`;
    if (manifest.unreachable) return { version, manifest, address, ...refusing(manifest.unreachable) };
    servable = await load(address, manifest);
    if (digests["golden.json"]) await checkGolden(servable, address("golden.json"));
    return { version, manifest, address, ...servable };
  } catch (error) {
    servable?.dispose();
    throw new Error(`version ${version} of ${model} cannot be loaded: ${error.message ?? error}`);
  }
}

/** Stands for an artifact that a version has not, and says why. */
function refusing(why) {
  return { run: () => Promise.reject(new Error(why)), dispose() {}, runs: "" };
}
