// What the user sees; `window.tandem.predict` is the same model for tests and for the console.

import { Answers } from "./answers.js";
import { element, make } from "./dom.js";
import { Server } from "./endpoints.js";
import { typedInput } from "./fields.js";
import { Model } from "./model.js";
import { PictureInput } from "./picture.js";
import { Race } from "./race.js";
import { runtimes } from "./runtimes.js";
import { tensors } from "./tensors.js";
import { meanTime } from "./timing.js";

let config;
let model;
let endpoints = [];
let truth = "";
let turn = 0;
let asking = Promise.resolve();
const inputs = {};
const answers = new Answers(load);
const race = new Race({ drawing: element("lanes"), table: element("times"), status: element("race-status") });

async function start() {
  const answer = await fetch("config.json");
  if (!answer.ok) throw new Error("the gateway has no config.json for this page");
  config = await answer.json();
  document.title = `Tandem: ${config.model}`;
  model = new Model(config.model);
  window.tandem = { config, predict: (values, count) => model.predict(values, count) };
  document.documentElement.dataset.ready = "";
  showReport();
  const servers = Object.entries(config.targets).map(([target, own]) => new Server(target, own, config.model));
  endpoints = [model, ...servers];
  answers.add("in-browser", [model]);
  answers.add("servers", servers);
  for (const [label, why] of Object.entries(config.unreachable ?? {}).filter(([target]) => target !== "tfjs")) {
    const absent = { label, runs: "", loaded: false };
    answers.add("servers", [absent]);
    answers.fail(absent, why);
  }
  element("start").addEventListener("click", startRace);
  runtimes(config.model).then((found) => {
    endpoints.splice(1, 0, ...found);
    answers.add("in-browser", found);
  });
  const served = await model.describe();
  showInputs(served.manifest.signature);
  await showSamples(served);
}

/** A widget for each input: the picture, where there is no other input, or a field to type in. */
function showInputs(signature) {
  const entries = Object.entries(signature.inputs);
  const changed = () => choose("", null);
  for (const [name, tensor] of entries) {
    const picture = tensor.content === "picture" && entries.length === 1;
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
    const shown = sample.file ? image(sample, address, manifest) : sample.answer;
    const button = make("button", { type: "button", title: sample.answer, "aria-pressed": "false" }, shown);
    button.addEventListener("click", () => chooseSample(sample, button, address));
    return button;
  });
  element("samples").replaceChildren(...buttons);
  await chooseSample(samples[0], buttons[0], address);
}

function image(sample, address, { signature }) {
  const [, height, width] = Object.values(signature.inputs)[0].shape;
  return make("img", { src: address(`samples/${sample.file}`), alt: sample.answer, width, height });
}

async function chooseSample(sample, button, address) {
  element("summary").textContent = "";
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
  truth = answer;
  asking = predict();
  return asking;
}

/** The input as tensors of one row, and the version that it is for. */
async function readInput() {
  const values = {};
  for (const [name, input] of Object.entries(inputs)) values[name] = await input.read();
  const served = await model.describe();
  return { ...served, row: tensors(served.manifest.signature, values, 1) };
}

async function predict() {
  const mine = ++turn;
  race.stop();
  element("summary").textContent = "";
  try {
    const { manifest, version, refused, row } = await readInput();
    if (mine !== turn) return;
    showError(refused ? new Error(refused) : null);
    element("served").textContent = `${config.model}, version ${version}`;
    answers.begin(manifest.task, truth);
    // One after the other: asked at once they would share the processor, and the times would say so.
    for (const endpoint of endpoints) {
      if (mine !== turn) return;
      if (endpoint.loaded) await ask(endpoint, { manifest, version, row }, () => mine === turn);
    }
    if (mine === turn) element("summary").textContent = answers.summary();
  } catch (error) {
    if (mine === turn) showError(error);
  }
}

async function ask(endpoint, { manifest, version, row }, on) {
  try {
    await endpoint.follow?.(version);
    const outputs = await endpoint.ask(manifest.signature, row);
    if (!on()) return;
    answers.show(endpoint, outputs);
    const timed = await meanTime(() => endpoint.ask(manifest.signature, row), { on });
    if (on()) answers.show(endpoint, outputs, timed);
  } catch (error) {
    if (on()) answers.fail(endpoint, error.message);
  }
}

async function load(endpoint) {
  try {
    const input = await readInput();
    await endpoint.load(input.version);
    const mine = turn;
    await ask(endpoint, input, () => mine === turn);
    if (mine === turn && element("summary").textContent) element("summary").textContent = answers.summary();
  } catch (error) {
    answers.offer(endpoint, error.message);
  }
}

async function startRace() {
  if (race.on) return race.stop();
  const button = element("start");
  try {
    button.textContent = "Stop the race";
    await asking;
    const { manifest, row } = await readInput();
    element("race-status").textContent = "The race has started.";
    await race.run(endpoints.filter(({ loaded }) => loaded), (endpoint) => endpoint.ask(manifest.signature, row));
  } catch (error) {
    showError(error);
  } finally {
    button.textContent = "Start the race";
  }
}

/** A link to the newest report of `make compare`, where there is one. */
async function showReport() {
  const answer = await fetch("reports/", { headers: { Accept: "application/json" } }).catch(() => null);
  const entries = answer?.ok ? await answer.json() : [];
  const addresses = entries.filter((entry) => entry.is_dir).map(({ name }) => `reports/${name.replace(/\/$/, "")}/`);
  for (const address of addresses.sort().reverse()) {
    // A comparison that has not ended has no page yet, and is answered with a list of its files.
    const page = await fetch(address, { method: "HEAD", headers: { Accept: "application/json" } });
    if (!page.headers.get("content-type")?.startsWith("text/html")) continue;
    element("report").hidden = false;
    element("report").firstElementChild.href = address;
    return;
  }
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
