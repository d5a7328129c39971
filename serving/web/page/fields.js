// Inputs that are typed: a text, a few numbers, or JSON for whatever is larger.

import { make } from "./dom.js";

const FEW = 16;

/** The field of an input that is no picture, added to `parent`. `changed` is called when it was typed in. */
export function typedInput(parent, name, tensor, changed) {
  const size = tensor.shape.slice(1).reduce((a, b) => a * b, 1);
  const Kind = tensor.content === "text" ? TextInput : size <= FEW ? NumbersInput : JsonInput;
  return new Kind(parent, name, { ...tensor, size }, changed);
}

class Field {
  constructor(parent, name, tensor, changed) {
    Object.assign(this, { name, tensor });
    this.fields = this.create();
    const group = make("fieldset", {}, make("legend", { text: name }), ...this.fields);
    let waiting;
    group.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(changed, 200);
    });
    parent.append(group);
  }
}

class TextInput extends Field {
  create() {
    this.note = make("p", { className: "note" });
    return [make("textarea", { rows: 3, placeholder: "Write a text", "aria-label": this.name }), this.note];
  }

  async set(sample) {
    this.fields[0].value = sample[this.name];
  }

  /** UTF-8 bytes, cut or filled with zeros, as every client does it. */
  async read() {
    const { size } = this.tensor;
    const bytes = new TextEncoder().encode(this.fields[0].value);
    this.note.textContent = bytes.length > size ? `Only the first ${size} of its ${bytes.length} bytes are read.` : "";
    return Int32Array.from({ length: size }, (_, i) => bytes[i] ?? 0);
  }
}

class NumbersInput extends Field {
  create() {
    const step = this.tensor.dtype === "int32" ? "1" : "any";
    const { size } = this.tensor;
    const label = (index) => (size > 1 ? `${this.name} ${index + 1} of ${size}` : this.name);
    return Array.from({ length: size }, (_, i) => make("input", { type: "number", step, value: 0, "aria-label": label(i) }));
  }

  async set(sample) {
    [sample[this.name]].flat(Infinity).forEach((value, i) => (this.fields[i].value = value));
  }

  async read() {
    const empty = this.fields.find((field) => field.value === "");
    if (empty) throw new Error(`${empty.getAttribute("aria-label")}: expected a number`);
    return this.fields.map((field) => Number(field.value));
  }
}

class JsonInput extends Field {
  create() {
    return [make("textarea", { rows: 6, spellcheck: false, "aria-label": this.name })];
  }

  async set(sample) {
    this.fields[0].value = JSON.stringify(sample[this.name]);
  }

  async read() {
    try {
      return [JSON.parse(this.fields[0].value)].flat(Infinity);
    } catch (error) {
      throw new Error(`${this.name}: expected JSON of the shape [${this.tensor.shape.slice(1)}]: ${error.message}`);
    }
  }
}
