// Pictures to the model's numbers: grey levels 0 to 1, in the model's size.

// ITU-R BT.601 in 16 bit fixed point, as the servers do it.
const LUMA = [19595, 38470, 7471];

/** Read a picture file into a Float32Array of height * width values. Throws an Error where it is none. */
export async function readPicture(blob, [height, width], invert) {
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
  return Float32Array.from({ length: height * width }, (_, i) => {
    const level = (LUMA[0] * data[4 * i] + LUMA[1] * data[4 * i + 1] + LUMA[2] * data[4 * i + 2] + 0x8000) >> 16;
    return (invert ? 255 - level : level) / 255;
  });
}

/** Draw values 0 to 1 on a canvas of the model's size. */
export function drawPicture(canvas, values) {
  const pixels = new ImageData(canvas.width, canvas.height);
  values.forEach((value, i) => {
    pixels.data.fill(Math.round(value * 255), 4 * i, 4 * i + 3);
    pixels.data[4 * i + 3] = 255;
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
