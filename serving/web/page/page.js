// What the user sees; `window.tandem.predict` is the same model for tests and for the console.

import { ask } from "./endpoints.js";
import { Model } from "./model.js";
import { drawPicture, readPicture } from "./picture.js";

const AGREEMENT = 1e-3;
const element = (id) => document.getElementById(id);
const percent = (share) => `${(share * 100).toFixed(1)} %`;
const time = (milliseconds) => `${milliseconds.toFixed(1)} ms`;
const best = (values) => values.indexOf(Math.max(...values));

let config;
let model;
let chosen = null;
let turn = 0;

async function start() {
  const answer = await fetch("config.json");
  if (!answer.ok) throw new Error("the gateway has no config.json for this page");
  config = await answer.json();
  const [height, width, channels] = config.imageShape;
  if (channels !== 1) throw new Error(`this page draws grey pictures, the model wants ${channels} channels`);
  Object.assign(element("picture"), { width, height });
  document.title = `Tandem: ${config.model}`;
  model = new Model(config);
  window.tandem = { config, predict: (pictures, count) => model.predict(pictures, count) };
  document.documentElement.dataset.ready = "";
  element("file").addEventListener("change", (event) => choose(event.target.files[0], ""));
  element("invert").addEventListener("change", () => chosen && classify());
  for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, drag);
  await showSamples();
}

async function showSamples() {
  const answer = await fetch("samples/index.json").catch(() => null);
  const samples = answer?.ok ? await answer.json() : [];
  if (!samples.length) {
    element("samples").textContent = "No sample pictures are published yet.";
    element("served").textContent = config.model;
    return;
  }
  const buttons = samples.map((sample) => {
    const button = document.createElement("button");
    const picture = document.createElement("img");
    Object.assign(picture, { src: `samples/${sample.file}`, alt: sample.class, width: 28, height: 28 });
    Object.assign(button, { type: "button", title: sample.class });
    button.setAttribute("aria-pressed", "false");
    button.append(picture);
    button.addEventListener("click", () => chooseSample(sample, button));
    return button;
  });
  element("samples").replaceChildren(...buttons);
  await chooseSample(samples[0], buttons[0]);
}

async function chooseSample(sample, button) {
  const answer = await fetch(`samples/${sample.file}`).catch(() => null);
  if (!answer?.ok) return showError(new Error(`the sample ${sample.file} cannot be fetched`));
  element("invert").checked = false;
  return choose(await answer.blob(), sample.class, button);
}

function choose(blob, label, button = null) {
  if (!blob) return undefined;
  for (const other of element("samples").querySelectorAll("button")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  if (button) element("file").value = "";
  chosen = { blob, label };
  return classify();
}

async function classify() {
  const mine = ++turn;
  const { blob, label } = chosen;
  try {
    const values = await readPicture(blob, config.imageShape, element("invert").checked);
    const answer = await model.predict(values, 1);
    if (mine !== turn) return;
    showError(answer.refused ? new Error(answer.refused) : null);
    drawPicture(element("picture"), values);
    const name = label || blob.name || "picture";
    element("picture").setAttribute("aria-label", `The picture as the model sees it: ${name}`);
    showAnswer(answer, label);
    await askEndpoints(mine, values, answer);
  } catch (error) {
    if (mine === turn) showError(error);
  }
}

function showAnswer({ probabilities: [shares], version, milliseconds }, label) {
  const winner = best(shares);
  element("served").textContent = `${config.model}, version ${version}`;
  const truth = label && label !== config.classes[winner] ? ` (labelled ${label})` : "";
  const strong = document.createElement("strong");
  strong.textContent = config.classes[winner];
  element("verdict").replaceChildren(strong, `${percent(shares[winner])} in ${time(milliseconds)}${truth}`);
  const items = shares.map((share, index) => {
    const item = document.createElement("li");
    item.className = index === winner ? "winner" : "";
    const [name, bar, figure] = ["name", "bar", "figure"].map((kind) => {
      const span = document.createElement("span");
      span.className = kind;
      return span;
    });
    name.textContent = config.classes[index];
    bar.style.setProperty("--share", share);
    figure.textContent = percent(share);
    item.append(name, bar, figure);
    return item;
  });
  element("bars").replaceChildren(...items);
}

async function askEndpoints(mine, values, { probabilities: [reference], milliseconds }) {
  const own = row("This browser", [config.classes[best(reference)], "", "", time(milliseconds)]);
  const others = Object.entries(config.targets).map(([name, { label }]) => [name, row(label, ["…", "", "", ""])]);
  element("endpoints").replaceChildren(own, ...others.map(([, line]) => line));
  // One after the other: asked at once they would share the processor, and the times would say so.
  for (const [name, line] of others) {
    if (mine !== turn) return;
    try {
      const { probabilities, milliseconds: taken, runs } = await ask(config, name, values);
      if (runs) line.firstChild.textContent = `${config.targets[name].label}: ${runs}`;
      const difference = Math.max(...probabilities.map((share, index) => Math.abs(share - reference[index])));
      const sameClass = best(probabilities) === best(reference);
      const same = sameClass && difference <= AGREEMENT;
      const verdict = same ? "✓ yes" : sameClass ? "≈ same class" : "✗ no";
      fill(line, [config.classes[best(probabilities)], verdict, difference.toExponential(1), time(taken)]);
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

function drag(event) {
  event.preventDefault();
  element("choose").classList.toggle("over", event.type === "dragover");
  if (event.type === "drop") choose(event.dataTransfer.files[0], "");
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
