// A picture as an input: chosen or dropped, shown as the model sees it, turned into values 0 to 1 in its size.

import { element } from "./dom.js";

// ITU-R BT.601 in 16 bit fixed point, as the servers do it.
const LUMA = [19595, 38470, 7471];

/** The picture's part of the page. `changed` is called when another picture is to be read. */
export class PictureInput {
  #shape;
  #changed;
  #chosen = null;

  constructor({ shape: [, ...row] }, changed) {
    this.#shape = row;
    this.#changed = changed;
    element("picture-input").hidden = false;
    Object.assign(element("picture"), { width: row[1], height: row[0] });
    element("file").addEventListener("change", (event) => this.#choose(event.target.files[0]));
    element("invert").addEventListener("change", () => this.#chosen && changed());
    for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, (event) => this.#drag(event));
  }

  /** Take a sample: {file, answer} and its address. */
  async set(sample, address) {
    const answer = await fetch(address(`samples/${sample.file}`)).catch(() => null);
    if (!answer?.ok) throw new Error(`the sample ${sample.file} cannot be fetched`);
    element("invert").checked = false;
    element("file").value = "";
    this.#chosen = { blob: await answer.blob(), label: sample.answer };
  }

  /** The values of the picture, which is drawn as the model sees it. Throws an Error where it is none. */
  async read() {
    if (!this.#chosen) throw new Error("choose a picture");
    const { blob, label } = this.#chosen;
    const values = await readPicture(blob, this.#shape, element("invert").checked);
    drawPicture(element("picture"), values, this.#shape[2]);
    const name = label || blob.name || "picture";
    element("picture").setAttribute("aria-label", `The picture as the model sees it: ${name}`);
    return values;
  }

  #choose(blob) {
    if (!blob) return;
    this.#chosen = { blob, label: "" };
    this.#changed();
  }

  #drag(event) {
    event.preventDefault();
    element("choose").classList.toggle("over", event.type === "dragover");
    if (event.type === "drop") this.#choose(event.dataTransfer.files[0]);
  }
}

async function readPicture(blob, [height, width, channels], invert) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("this file is not a picture that the browser can read; expected PNG or JPEG");
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  // The longer side fits; the rest stays black, which is the ground of the pictures that the model knows.
  const scale = Math.min(width / bitmap.width, height / bitmap.height);
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  context.fillStyle = invert ? "white" : "black";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return Float32Array.from({ length: height * width * channels }, (_, i) => {
    const start = 4 * Math.floor(i / channels);
    const grey = (LUMA[0] * data[start] + LUMA[1] * data[start + 1] + LUMA[2] * data[start + 2] + 0x8000) >> 16;
    const level = channels === 1 ? grey : data[start + (i % channels)];
    return (invert ? 255 - level : level) / 255;
  });
}

function drawPicture(canvas, values, channels) {
  const pixels = new ImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = Math.round(255 * values[i * channels + (channels === 3 ? c : 0)]);
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
