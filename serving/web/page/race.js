// A race: every endpoint gets the same calls, in turns, one at a time; drawn while it runs.

import { make } from "./dom.js";
import { clockStep, inMilliseconds, meanTime, quantile } from "./timing.js";

const LAPS = 100;
const BINS = 48;
const LANE = 56;
const STRIKES = 3;
const SVG = "http://www.w3.org/2000/svg";

/** One endpoint's part of the race. `times` are in milliseconds a call. */
class Lane {
  times = [];
  failures = 0;
  row = 0;
  out = "";
  calls = 1;

  constructor(endpoint) {
    this.endpoint = endpoint;
    this.name = endpoint.on ? `${endpoint.label}, ${endpoint.on}` : endpoint.label;
  }
}

export class Race {
  #elements;
  #on = false;

  /** `elements`: {drawing, table, status}. */
  constructor(elements) {
    this.#elements = elements;
  }

  get on() {
    return this.#on;
  }

  stop() {
    this.#on = false;
  }

  /**
   * Run it with `ask(endpoint)`, one call. An endpoint that fails three times in a row is out, and the others go on.
   * @param {Object[]} endpoints
   */
  async run(endpoints, ask) {
    const lanes = endpoints.map((endpoint) => new Lane(endpoint));
    this.#on = true;
    const step = clockStep();
    // The first calls open connections and compile: they are left out, and tell how many calls the clock can see.
    for (const lane of lanes) {
      await this.#lap(lane, ask);
      await this.#lap(lane, ask);
      const [, second = Infinity] = lane.times;
      if (second < 20 * step) lane.calls = Math.min(50, Math.ceil((20 * step) / Math.max(second, step)));
      lane.times = [];
    }
    let drawn = 0;
    for (let lap = 1; lap <= LAPS && this.#on; lap++) {
      for (const lane of lanes) if (this.#on && !lane.out) await this.#lap(lane, ask);
      if (performance.now() - drawn > 50 || lap === LAPS) {
        this.#draw(lanes);
        if (lap % 25 === 0 && lap < LAPS) this.#elements.status.textContent = `${lap} of ${LAPS} laps.`;
        // Lets the browser paint; not the next frame, which a hidden page has none of.
        await new Promise((resolve) => setTimeout(resolve));
        drawn = performance.now();
      }
    }
    this.#draw(lanes);
    this.#elements.status.textContent = verdict(lanes, this.#on);
    this.#on = false;
  }

  async #lap(lane, ask) {
    if (lane.out) return;
    try {
      const { milliseconds } = await meanTime(() => ask(lane.endpoint), { calls: lane.calls, milliseconds: Infinity });
      lane.times.push(milliseconds);
      lane.row = 0;
    } catch (error) {
      lane.failures += 1;
      lane.row += 1;
      if (lane.row >= STRIKES || error.message === "not answering") lane.out = error.message;
    }
  }

  #draw(lanes) {
    const { drawing, table } = this.#elements;
    const width = Math.max(280, drawing.clientWidth);
    const axis = new Axis(lanes.flatMap(({ times }) => times), width);
    const first = leader(lanes);
    const height = LANE * lanes.length + 22;
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", height);
    drawing.replaceChildren(
      ...axis.draw(height),
      ...lanes.flatMap((lane, index) => drawLane(lane, axis, index * LANE, lane === first)),
    );
    table.tBodies[0].replaceChildren(...lanes.map(tableRow));
    table.hidden = false;
  }
}

/** A logarithmic axis of milliseconds over whole decades. */
class Axis {
  constructor(times, width) {
    const [least, most] = times.length ? [Math.min(...times), Math.max(...times)] : [1, 10];
    this.low = Math.floor(Math.log10(Math.max(least, 1e-3)));
    this.high = Math.max(this.low + 1, Math.ceil(Math.log10(most)));
    this.width = width;
  }

  at(milliseconds) {
    const share = (Math.log10(Math.max(milliseconds, 1e-3)) - this.low) / (this.high - this.low);
    return 1 + share * (this.width - 2);
  }

  draw(height) {
    const decades = Array.from({ length: this.high - this.low + 1 }, (_, index) => 10 ** (this.low + index));
    return decades.flatMap((decade, index) => {
      const x = this.at(decade);
      const anchor = index === 0 ? "start" : index === decades.length - 1 ? "end" : "middle";
      return [
        draw("line", { class: "grid", x1: x, x2: x, y1: 0, y2: height - 18 }),
        draw("text", { class: "tick", x, y: height - 4, "text-anchor": anchor }, `${Number(decade.toPrecision(1))} ms`),
      ];
    });
  }
}

function drawLane({ name, times, out }, axis, top, leads) {
  const { width } = axis;
  const floor = top + LANE - 4;
  const label = draw("text", { class: "name", x: 4, y: top + 13 }, name);
  if (!times.length) {
    return [label, draw("text", { class: "said", x: width - 4, y: top + 13, "text-anchor": "end" }, out || "…")];
  }
  const bins = new Array(BINS).fill(0);
  const size = axis.width / BINS;
  for (const time of times) bins[Math.min(BINS - 1, Math.floor(axis.at(time) / size))] += 1;
  const fullest = Math.max(...bins);
  const bars = bins.flatMap((count, index) => {
    if (!count) return [];
    const tall = Math.max(1.5, (count / fullest) * (LANE - 26));
    return [draw("rect", { class: leads ? "bin leads" : "bin", x: index * size, y: floor - tall, width: size - 1, height: tall, rx: 1 })];
  });
  const median = quantile(times, 0.5);
  const x = axis.at(median);
  const said = out ? `${out} after ${times.length}` : inMilliseconds(median);
  return [
    ...bars,
    draw("line", { class: "median", x1: x, x2: x, y1: top + 18, y2: floor }),
    draw("line", { class: "floor", x1: 0, x2: (width * times.length) / LAPS, y1: floor + 1, y2: floor + 1 }),
    label,
    draw("text", { class: "said", x: width - 4, y: top + 13, "text-anchor": "end" }, said),
  ];
}

function draw(tag, attributes, text = "") {
  const drawn = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
  drawn.textContent = text;
  return drawn;
}

function tableRow({ name, times, failures, out, calls }) {
  const figures = times.length ? [0.5, 0.9, 0].map((share) => inMilliseconds(quantile(times, share))) : ["–", "–", "–"];
  const counted = `${times.length}${calls > 1 ? ` × ${calls}` : ""}`;
  const cells = [...figures, counted, String(failures)].map((text) => make("td", { role: "cell", className: "figure", text }));
  const head = make("th", { scope: "row", role: "rowheader", text: name });
  return make("tr", { role: "row", className: out ? "down" : "" }, head, ...cells);
}

/** The one with the lowest median; none before an answer. */
function leader(lanes) {
  const ran = lanes.filter(({ times, out }) => times.length && !out);
  return ran.toSorted((a, b) => quantile(a.times, 0.5) - quantile(b.times, 0.5))[0];
}

function verdict(lanes, finished) {
  const out = lanes.filter((lane) => lane.out).map(({ endpoint, out }) => ` ${endpoint.label}: ${out}.`).join("");
  const first = leader(lanes);
  if (!first) return `No endpoint answered.${out}`;
  const median = inMilliseconds(quantile(first.times, 0.5));
  return `${finished ? "Done" : "Stopped"}: ${first.name} has the lowest median, ${median}.${out}`;
}
