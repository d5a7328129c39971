// The shapes in a .tflite file: a flatbuffer (tensorflow/compiler/mlir/lite/schema/schema.fbs).

const SUBGRAPHS = 2;
const TENSORS = 0;
const SHAPE = 0;
const SHAPE_SIGNATURE = 7;

/**
 * Set the free sizes of a file to those of one row, in place: LiteRT.js takes no others.
 * @param {ArrayBuffer} file
 */
export function fixRow(file) {
  const view = new DataView(file);
  const follow = (place) => place + view.getUint32(place, true);
  // Where the vector lies that a table has as its field `index`; 0 where it has none.
  const vector = (table, index) => {
    const slots = table - view.getInt32(table, true);
    const slot = 4 + 2 * index;
    const offset = slot < view.getUint16(slots, true) ? view.getUint16(slots + slot, true) : 0;
    return offset && follow(table + offset);
  };
  // Where the items of such a vector lie, each of four bytes.
  const items = (table, index) => {
    const start = vector(table, index);
    return Array.from({ length: start && view.getUint32(start, true) }, (_, item) => start + 4 + 4 * item);
  };
  for (const subgraph of items(follow(0), SUBGRAPHS).map(follow)) {
    for (const tensor of items(subgraph, TENSORS).map(follow)) {
      const sizes = items(tensor, SHAPE);
      items(tensor, SHAPE_SIGNATURE).forEach((place, index) => {
        if (view.getInt32(place, true) < 0) view.setInt32(place, view.getInt32(sizes[index], true), true);
      });
    }
  }
}
