// The answers of all endpoints side by side: their values, and a row for each.

import { element, make } from "./dom.js";
import { largestDifference } from "./tensors.js";
import { inMilliseconds } from "./timing.js";

const AGREEMENT = 1e-3;
const SHOWN = 12;
const percent = (share) => `${(share * 100).toFixed(1)} %`;

/** What an answer is judged by: values by name, the answer in words, and how a value is written. */
function read(task, outputs) {
  if (task.kind === "classification") {
    const values = Array.from(outputs.probabilities);
    const winner = values.indexOf(Math.max(...values));
    return { names: task.classes, values, winner, text: task.classes[winner], figure: percent };
  }
  // Of an imported artifact nobody has named what it answers.
  const values = task.quantities ? Array.from(outputs.value) : Object.values(outputs).flatMap((own) => Array.from(own));
  const places = Object.entries(outputs).flatMap(([name, own]) => Array.from(own, (_, place) => `${name}[${place}]`));
  const figure = (value) => value.toPrecision(6);
  const text = values.slice(0, 8).map(figure).join(", ");
  return { names: task.quantities ?? places, values, winner: -1, text, figure };
}

export class Answers {
  #lines = new Map();
  #found = new Map();
  #task = null;
  #truth = "";
  #load;

  /** `load(endpoint)` is called when an endpoint that is not loaded is asked for. */
  constructor(load) {
    this.#load = load;
  }

  /** Add a row for each endpoint to the table body `id`. */
  add(id, endpoints) {
    for (const endpoint of endpoints) {
      const line = make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", tabIndex: -1 }));
      this.#lines.set(endpoint, line);
      element(id).append(line);
      if (endpoint.loaded) this.#fill(endpoint, []);
      else this.offer(endpoint);
    }
  }

  /** A new input, `truth` being what it is labelled: what was answered before is of another one. */
  begin(task, truth) {
    this.#task = task;
    this.#truth = truth;
    this.#found.clear();
    for (const endpoint of this.#lines.keys()) if (endpoint.loaded) this.#fill(endpoint, ["…", "", "", ""]);
  }

  /** Show what an endpoint answered and, once it is known, its time. The first one is what the others are compared to. */
  show(endpoint, outputs, timed) {
    const answer = this.#found.get(endpoint) ?? read(this.#task, outputs);
    this.#found.set(endpoint, answer);
    const [reference] = this.#found.values();
    const time = timed ? inMilliseconds(timed.milliseconds) : "";
    if (answer === reference) {
      this.#fill(endpoint, [answer.text, "reference", "", time]);
      this.#showVerdict(answer);
    } else {
      const difference = largestDifference(answer.values, reference.values);
      const scale = Math.max(1, ...reference.values.map(Math.abs));
      const sameClass = answer.winner === reference.winner;
      const same = sameClass && difference <= AGREEMENT * scale;
      const classes = this.#task.kind === "classification";
      const verdict = same ? "✓ yes" : sameClass && classes ? "≈ same class" : "✗ no";
      this.#fill(endpoint, [answer.text, verdict, difference.toExponential(1), time]);
      this.#lines.get(endpoint).className = same ? "agrees" : sameClass && classes ? "" : "differs";
    }
    if (timed) this.#lines.get(endpoint).lastChild.title = `the mean of ${timed.calls} calls`;
    this.#showValues(reference);
  }

  /** Show why an endpoint does not answer. */
  fail(endpoint, message) {
    this.#fill(endpoint, []);
    this.#found.delete(endpoint);
    const line = this.#lines.get(endpoint);
    line.append(make("td", { role: "cell", className: "said", colSpan: 4, text: message }));
    line.className = "down";
  }

  /** Show a button that loads an endpoint, and why that failed before. */
  offer(endpoint, message = "") {
    const text = message ? "Try again" : "Load";
    const button = make("button", { type: "button", text, "aria-label": `${text}: ${endpoint.label} ${endpoint.runs}` });
    button.addEventListener("click", async () => {
      Object.assign(button, { disabled: true, textContent: "Loading…" });
      await this.#load(endpoint);
      this.#lines.get(endpoint).firstChild.focus();
    });
    const line = this.#lines.get(endpoint);
    this.#fill(endpoint, []);
    line.append(make("td", { role: "cell", className: "said", colSpan: 4, text: message }, button));
    line.className = "offered";
  }

  /** One sentence on all of them, once they have answered. */
  summary() {
    const [reference, ...others] = this.#found.entries();
    if (!reference) return "";
    const answered = this.#found.size;
    const silent = [...this.#lines].filter(([endpoint, line]) => endpoint.loaded && line.className === "down");
    const away = silent.length ? ` ${silent.map(([{ label }]) => label).join(", ")}: no answer.` : "";
    if (this.#task.kind !== "classification") {
      const most = Math.max(0, ...others.map(([, { values }]) => largestDifference(values, reference[1].values)));
      return `${answered} endpoints answered; the largest difference is ${most.toExponential(1)}.${away}`;
    }
    const differing = others.filter(([, { winner }]) => winner !== reference[1].winner);
    const same = answered - differing.length;
    const told = differing.map(([{ label }, { text }]) => `${label} says ${text}`).join(", ");
    const all = differing.length ? `${same} of ${answered} endpoints say` : `All ${answered} endpoints that answered say`;
    return `${all} ${reference[1].text}${told && `; ${told}`}.${away}`;
  }

  #fill(endpoint, cells) {
    const line = this.#lines.get(endpoint);
    const head = line.firstChild;
    head.replaceChildren(`${endpoint.label} `, make("span", { className: "runs", text: endpoint.runs }));
    const filled = cells.map((text, index) => make("td", { role: "cell", text, className: index >= 2 ? "figure" : "" }));
    line.replaceChildren(head, ...filled);
    line.className = "";
  }

  #showVerdict({ text, values, winner }) {
    const sure = winner < 0 ? "" : percent(values[winner]);
    const labelled = this.#truth && this.#truth !== text ? ` labelled ${this.#truth}` : "";
    element("verdict").replaceChildren(make("strong", { text }), `${sure}${labelled}`);
  }

  #showValues(reference) {
    const places = reference.names.map((_, place) => place);
    if (places.length > SHOWN) places.sort((a, b) => reference.values[b] - reference.values[a]).splice(SHOWN);
    const found = [...this.#found];
    const heads = found.map(([{ label, on = "" }]) => {
      return make("th", { scope: "col", text: `${label} ` }, make("span", { className: "runs", text: on }));
    });
    const largest = Math.max(1e-30, ...found.flatMap(([, { values }]) => values.map(Math.abs)));
    const scale = this.#task.kind === "classification" ? 1 : largest;
    const lines = places.map((place) => {
      const cells = found.map(([, answer]) => valueCell(answer, reference, place, scale));
      const line = make("tr", {}, make("th", { scope: "row", text: reference.names[place] }), ...cells);
      line.className = place === reference.winner ? "winner" : "";
      return line;
    });
    const corner = make("td", { text: "" });
    element("values").style.setProperty("--columns", found.length);
    element("values").tHead.replaceChildren(make("tr", {}, corner, ...heads));
    element("values").tBodies[0].replaceChildren(...lines);
    element("more").hidden = places.length === reference.names.length;
    element("more").textContent = `The ${SHOWN} most probable of ${reference.names.length}.`;
  }
}

/** A value with its bar; marked where it is written otherwise than the reference's. */
function valueCell({ values, figure }, reference, place, scale) {
  const value = values[place];
  const text = figure(value);
  const cell = make("td", { className: "value" }, make("span", { className: "number", text }));
  const bar = make("span", { className: "bar" });
  bar.style.setProperty("--share", Math.abs(value) / scale);
  const expected = figure(reference.values[place]);
  if (text !== expected) {
    cell.classList.add("other");
    const apart = parseFloat(text) - parseFloat(expected);
    const digits = figure === percent ? apart.toFixed(1) : apart.toPrecision(2);
    cell.append(make("span", { className: "apart", text: `${apart > 0 ? "+" : ""}${digits.replace("-", "−")}` }));
  }
  cell.append(bar);
  return cell;
}
