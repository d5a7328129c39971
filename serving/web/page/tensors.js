// Numbers on their way into a model and out of it: by the signature's names, in typed arrays.

/**
 * @typedef {{dtype: "float32" | "int32", shape: number[], data: Float32Array | Int32Array}} Tensor  data flat, in C order
 * @typedef {{inputs: Object<string, {dtype: string, shape: number[], content: string}>, outputs: Object}} Signature
 *     as the manifest has it; the first size of a shape is the batch
 * @typedef {{run: (inputs: Object<string, Tensor>) => Promise<Object<string, ArrayLike<number>>>, dispose: () => void,
 *     runs: string}} Servable  a loaded model: the outputs of a run by name, flat, and what runs it
 */

const KINDS = { float32: Float32Array, int32: Int32Array };

/** The product of sizes. */
export const sizeOf = (shape) => shape.reduce((a, b) => a * b, 1);

/**
 * `count` rows of numbers by input, nested or flat, as tensors by input.
 * Throws an Error that says what was expected.
 * @param {Signature} signature
 * @returns {Object<string, Tensor>}
 */
export function tensors(signature, inputs, count) {
  if (!Number.isInteger(count) || count < 1) {
    throw new Error(`expected a whole number of rows, at least 1, got ${count}`);
  }
  const entries = Object.entries(signature.inputs).map(([name, { dtype, shape: [, ...row] }]) => {
    const given = inputs?.[name];
    const flat = Array.isArray(given) ? given.flat(Infinity) : given;
    const shape = [count, ...row];
    if (flat?.length !== sizeOf(shape)) {
      const found = flat?.length ?? typeof flat;
      throw new Error(`${name}: expected ${sizeOf(shape)} numbers for the shape [${shape.join(", ")}], got ${found}`);
    }
    const right = dtype === "int32" ? (value) => (value | 0) === value : Number.isFinite;
    const wrong = flat.findIndex((value) => !right(value));
    if (wrong >= 0) {
      const expected = dtype === "int32" ? "whole numbers of 32 bits" : "finite numbers";
      throw new Error(`${name}: expected ${expected}, got ${flat[wrong]} at position ${wrong}`);
    }
    return [name, { dtype, shape, data: KINDS[dtype].from(flat) }];
  });
  return Object.fromEntries(entries);
}

/** Rows `first` up to `end` of tensors. */
export function rowsOf(inputs, first, end) {
  const part = ({ dtype, shape: [, ...row], data }) => ({
    dtype,
    shape: [end - first, ...row],
    data: data.subarray(first * sizeOf(row), end * sizeOf(row)),
  });
  return Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, part(tensor)]));
}

/**
 * Ask a model for its golden sample: serving/golden.py. Throws an Error with the difference and its limit.
 * @param {Servable} model
 */
export async function checkGolden(model, address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`its golden sample cannot be fetched: ${answer.status}`);
  const { inputs, outputs, tolerance } = await answer.json();
  const decoded = Object.entries(inputs).map(([name, tensor]) => [name, { ...tensor, data: decode(tensor) }]);
  const answers = await model.run(Object.fromEntries(decoded));
  for (const [name, tensor] of Object.entries(outputs)) {
    const expected = decode(tensor);
    const difference = largestDifference(answers[name], expected);
    const limit = tolerance * expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    if (!(difference <= limit)) {
      const [found, allowed] = [difference, limit].map((figure) => figure.toPrecision(3));
      const told = `${name} differs by ${found} from the source framework's answer, the limit is ${allowed}`;
      throw new Error(`golden sample: ${told}`);
    }
  }
}

/** The largest absolute difference of two lists of numbers; NaN where one of them is no number. */
export function largestDifference(values, expected) {
  const apart = Array.from(expected, (value, place) => Math.abs(values[place] - value));
  return apart.reduce((most, value) => (value > most || Number.isNaN(value) ? value : most), 0);
}

function decode({ data, dtype }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new KINDS[dtype](bytes.buffer);
}
