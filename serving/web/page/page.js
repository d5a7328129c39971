// What the user sees; `window.tandem.predict` is the same model for tests and for the console.

import { ask } from "./endpoints.js";
import { typedInput } from "./fields.js";
import { Model } from "./model.js";
import { PictureInput } from "./picture.js";

const AGREEMENT = 1e-3;
const element = (id) => document.getElementById(id);
const percent = (share) => `${(share * 100).toFixed(1)} %`;
const time = (milliseconds) => `${milliseconds.toFixed(1)} ms`;
const best = (values) => values.indexOf(Math.max(...values));

let config;
let model;
let inputs = {};
let label = "";
let turn = 0;

async function start() {
  const answer = await fetch("config.json");
  if (!answer.ok) throw new Error("the gateway has no config.json for this page");
  config = await answer.json();
  document.title = `Tandem: ${config.model}`;
  model = new Model(config.model);
  window.tandem = { config, predict: (values, count) => model.predict(values, count) };
  document.documentElement.dataset.ready = "";
  const served = await model.describe();
  showInputs(served.manifest.signature);
  await showSamples(served);
}

/** A widget for each input: the picture, where there is no other input, or a field to type in. */
function showInputs(signature) {
  const tensors = Object.entries(signature.inputs);
  const changed = () => choose("", null);
  for (const [name, tensor] of tensors) {
    const picture = tensor.content === "picture" && tensors.length === 1;
    inputs[name] = picture
      ? new PictureInput(tensor, changed)
      : typedInput(element("fields"), name, tensor, changed);
  }
}

async function showSamples({ address, manifest, version }) {
  element("served").textContent = `${config.model}, version ${version}`;
  const answer = await fetch(address("samples/index.json")).catch(() => null);
  const samples = answer?.ok ? await answer.json() : [];
  if (!samples.length) {
    element("samples").textContent = "This version has no samples.";
    return;
  }
  const buttons = samples.map((sample) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title: sample.answer });
    button.setAttribute("aria-pressed", "false");
    button.append(sample.file ? image(sample, address, manifest) : sample.answer);
    button.addEventListener("click", () => chooseSample(sample, button, address));
    return button;
  });
  element("samples").replaceChildren(...buttons);
  await chooseSample(samples[0], buttons[0], address);
}

function image(sample, address, { signature }) {
  const picture = document.createElement("img");
  const [, height, width] = Object.values(signature.inputs)[0].shape;
  return Object.assign(picture, { src: address(`samples/${sample.file}`), alt: sample.answer, width, height });
}

async function chooseSample(sample, button, address) {
  try {
    for (const input of Object.values(inputs)) await input.set(sample, address);
  } catch (error) {
    return showError(error);
  }
  return choose(sample.answer, button);
}

function choose(answer, button) {
  for (const other of element("samples").querySelectorAll("button")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  label = answer;
  return predict();
}

async function predict() {
  const mine = ++turn;
  const truth = label;
  try {
    const values = {};
    for (const [name, input] of Object.entries(inputs)) values[name] = await input.read();
    const answer = await model.predict(values, 1);
    if (mine !== turn) return;
    showError(answer.refused ? new Error(answer.refused) : null);
    const { manifest } = await model.describe();
    const row = Object.fromEntries(Object.entries(answer.outputs).map(([name, rows]) => [name, [rows[0]].flat(Infinity)]));
    showAnswer(manifest.task, row, answer, truth);
    await askEndpoints(mine, manifest, values, row, answer.milliseconds);
  } catch (error) {
    if (mine === turn) showError(error);
  }
}

/** What an answer is judged by: names, values, a bar's share of each, and the answer in words. */
function read(task, outputs) {
  if (task.kind === "classification") {
    const values = outputs.probabilities;
    const winner = best(values);
    return { names: task.classes, values, shares: values, winner, text: task.classes[winner], figure: percent };
  }
  const values = outputs.value;
  const largest = Math.max(...values.map(Math.abs), 1e-30);
  const figure = (value) => value.toPrecision(6);
  const shares = values.map((value) => Math.abs(value) / largest);
  return { names: task.quantities, values, shares, winner: 0, text: values.map(figure).join(", "), figure };
}

function showAnswer(task, outputs, { version, milliseconds }, label) {
  const { names, values, shares, winner, text, figure } = read(task, outputs);
  element("served").textContent = `${config.model}, version ${version}`;
  const truth = label && label !== text ? ` (labelled ${label})` : "";
  const strong = document.createElement("strong");
  strong.textContent = text;
  const sure = task.kind === "classification" ? `${figure(values[winner])} in ` : "in ";
  element("verdict").replaceChildren(strong, `${sure}${time(milliseconds)}${truth}`);
  const items = shares.map((share, index) => {
    const item = document.createElement("li");
    item.className = index === winner ? "winner" : "";
    const [name, bar, number] = ["name", "bar", "figure"].map((kind) => {
      const span = document.createElement("span");
      span.className = kind;
      return span;
    });
    name.textContent = names[index];
    bar.style.setProperty("--share", share);
    number.textContent = figure(values[index]);
    item.append(name, bar, number);
    return item;
  });
  element("bars").replaceChildren(...items);
}

async function askEndpoints(mine, { signature, task }, values, outputs, milliseconds) {
  const reference = read(task, outputs);
  const own = row("This browser", [reference.text, "", "", time(milliseconds)]);
  const others = Object.entries(config.targets).map(([name, { label }]) => [name, row(label, ["…", "", "", ""])]);
  element("endpoints").replaceChildren(own, ...others.map(([, line]) => line));
  // One after the other: asked at once they would share the processor, and the times would say so.
  for (const [name, line] of others) {
    if (mine !== turn) return;
    try {
      const answer = await ask(config, signature, name, values);
      if (answer.runs) line.firstChild.textContent = `${config.targets[name].label}: ${answer.runs}`;
      const found = read(task, answer.outputs);
      const difference = Math.max(...found.values.map((value, index) => Math.abs(value - reference.values[index])));
      const scale = Math.max(1, ...reference.values.map(Math.abs));
      const sameClass = task.kind === "classification" && found.winner === reference.winner;
      const same = difference <= AGREEMENT * scale && (sameClass || task.kind !== "classification");
      const verdict = same ? "✓ yes" : sameClass ? "≈ same class" : "✗ no";
      fill(line, [found.text, verdict, difference.toExponential(1), time(answer.milliseconds)]);
      line.className = same ? "agrees" : sameClass ? "" : "differs";
    } catch (error) {
      const cell = document.createElement("td");
      Object.assign(cell, { colSpan: 4, textContent: error.message });
      line.replaceChildren(line.firstChild, cell);
      line.className = "down";
    }
  }
}

function row(label, cells) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = label;
  line.append(head, ...cells.map(() => document.createElement("td")));
  fill(line, cells);
  return line;
}

function fill(line, cells) {
  line.querySelectorAll("td").forEach((cell, index) => {
    cell.textContent = cells[index];
    cell.className = index >= 2 ? "figure" : "";
  });
}

function showError(error) {
  element("error").hidden = !error;
  element("error").textContent = error ? sentence(error.message) : "";
}

function sentence(text) {
  const [first = "", ...rest] = text;
  return `${first.toUpperCase()}${rest.join("")}${text.endsWith(".") ? "" : "."}`;
}

start().catch(showError);
