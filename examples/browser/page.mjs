// The page itself: loads the model and the series, streams one into the other at the chosen speed,
// and writes what it finds into the document. Drawing is in charts.mjs, the model in live_model.mjs.
//
// Addresses may say more: ?model=FILE.onnx&series=FILE.json&speed=max&start=no

import { drawDistance, drawLive, drawWhole, scientific } from "./charts.mjs";
import { LiveModel, quantile } from "./live_model.mjs";

const ORT = "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
const FRAME_MS = 10; // of work between two pictures, so that the page stays at hand
const asked = new URLSearchParams(location.search);
const parts = Object.fromEntries([...document.querySelectorAll("[id]")].map((e) => [e.id, e]));

let ort, model, series;
let run; // the stream so far
let running = false;
let broken = false;
let work = Promise.resolve(); // one thing after the other: a session runs one step at a time
const next = (action) => (work = work.then(action).catch(failed));

async function fetched(path, what) {
  const response = await fetch(path).catch((error) => {
    throw new Error(`${what} ${path} cannot be fetched: ${error.message}`);
  });
  if (!response.ok) {
    throw new Error(`${what} ${path} cannot be fetched: the server answers ${response.status}. ` +
      "Make it with make_model.py, or name another in this page's address");
  }
  return response;
}

async function load() {
  ort = await import(ORT).catch(() => {
    throw new Error(`ONNX Runtime Web is not at ${ORT}: run "npm ci --ignore-scripts" in this ` +
      "page's folder, and serve the folder with node_modules in it");
  });
  // One thread: more would need a page in cross-origin isolation, and a small step is no work to share.
  ort.env.wasm.numThreads = 1;
  const modelPath = asked.get("model") ?? "model.onnx";
  const file = await fetched(modelPath, "the model");
  const seriesPath = asked.get("series") ?? "series.json";
  const table = await fetched(seriesPath, "the series");
  series = await table.json().catch((error) => {
    throw new Error(`the series ${seriesPath} cannot be read: ${error.message}`);
  });
  model = await LiveModel.load(ort, new Uint8Array(await file.arrayBuffer()), {
    executionProviders: ["wasm"],
  }).catch((error) => {
    throw new Error(`the model ${modelPath} cannot be loaded: ${error.message}`);
  });
  const { samples, truth, reference, time } = series;
  const counts = [truth, reference, time].map((values) => values?.length);
  if (!samples?.length || counts.some((count) => count !== samples.length) || !(series.bound > 0)) {
    throw new Error(`the series ${seriesPath} is damaged: expected as many samples as true values, ` +
      "reference outputs and times, and a bound; found " +
      `${[samples?.length, ...counts, series.bound].map((found) => found ?? "none").join(", ")}`);
  }
  const sizes = [samples[0].length, reference[0].length].join(" and ");
  if (sizes !== `${model.inputSize} and ${model.outputSize}`) {
    throw new Error(`the model ${modelPath} does not fit the series ${seriesPath}: samples and ` +
      `reference outputs of ${sizes} values, and a model of ${model.inputSize} and ` +
      `${model.outputSize}`);
  }
  await model.step(samples[0]); // the first call of all is slower than those to come
}

function reset() {
  model.reset();
  const count = series.samples.length;
  run = {
    steps: 0,
    outputs: new Float64Array(count),
    distances: new Float64Array(count),
    times: new Float64Array(count),
    greatest: 0,
    squares: 0,
    naiveSquares: 0,
    scored: 0,
  };
}

async function step() {
  const k = run.steps;
  const start = performance.now();
  const y = await model.step(series.samples[k]);
  run.times[k] = performance.now() - start;
  const expected = series.reference[k];
  // Math.max hands a NaN on: one anywhere is a difference.
  run.distances[k] = expected.reduce((most, v, j) => Math.max(most, Math.abs(y[j] - v)), 0);
  run.greatest = Math.max(run.greatest, run.distances[k]);
  run.outputs[k] = y[0];
  run.steps += 1;
  score(k);
}

/** The error of what was predicted `horizon` ago for step k, where nothing was trained on it. */
function score(k) {
  const { truth, horizon, test_from: first } = series;
  if (k < first || k < horizon) return;
  run.scored += 1;
  run.squares += (run.outputs[k - horizon] - truth[k]) ** 2;
  run.naiveSquares += (truth[k - horizon] - truth[k]) ** 2;
}

function duration(ms) {
  if (Number.isNaN(ms)) return "–";
  // What a coarse clock cannot tell from nothing.
  const least = globalThis.crossOriginIsolated ? 0.005 : 0.1;
  if (ms < least) return `< ${1000 * least} µs`;
  return ms < 1 ? `${Math.round(1000 * ms)} µs` : `${ms.toFixed(1)} ms`;
}

function show() {
  if (broken) return "failed";
  const { steps, greatest } = run;
  const count = series.samples.length;
  const ended = steps === count;
  const times = run.times.subarray(0, steps);
  const [median, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
  const good = greatest <= series.bound;
  const verdict = !good ? "beyond" : ended ? "ok" : "";
  const unit = series.unit;
  parts.verdict.dataset.verdict = verdict;
  parts.verdict.textContent = { beyond: "Disagrees", ok: "Agrees" }[verdict] ?? (steps ? "Agrees so far" : "–");
  parts.difference.textContent = steps ? `${scientific(greatest)} ${unit}` : "–";
  parts.bound.textContent = `bound ${scientific(series.bound)} ${unit}`;
  parts.median.textContent = duration(median);
  parts.p99.textContent = duration(p99);
  const rmse = (squares) => Math.sqrt(squares / run.scored).toFixed(3);
  parts.rmse.textContent = run.scored ? `${rmse(run.squares)} ${unit}` : "–";
  parts.naive.textContent = run.scored
    ? `RMSE, last value ${rmse(run.naiveSquares)}`
    : `RMSE, from ${series.time[series.test_from]?.slice(0, 7)}`;
  parts.step.textContent = steps.toLocaleString("en");
  parts.when.textContent = `of ${count.toLocaleString("en")}, ${series.time[Math.max(steps - 1, 0)]}`;
  const state = ended ? "done" : running ? "running" : "paused";
  Object.assign(parts.result.dataset, {
    state,
    steps,
    verdict,
    difference: greatest,
    bound: series.bound,
    medianUs: 1000 * median,
    p99Us: 1000 * p99,
    runtime: `onnxruntime-web ${ort.env.versions.web}`,
  });
  parts.toggle.textContent = running ? "Pause" : ended ? "Again" : "Start";
  const data = { series, unit, ...run };
  drawLive(parts.live, data);
  drawWhole(parts.whole, data);
  drawDistance(parts.distance, data);
  return state;
}

/** One sentence for whoever does not see the charts; only where the state changes. */
function tell(state) {
  if (broken) return;
  const { steps, greatest } = run;
  const found = `greatest difference ${scientific(greatest)} ${series.unit}`;
  parts.status.textContent = {
    running: "Streaming.",
    paused: steps ? `Paused after ${steps} steps, ${found}.` : "Ready.",
    done: `The series has ended: ${steps.toLocaleString("en")} steps, ${found}.`,
  }[state];
  parts.live.setAttribute("aria-label", `Chart of ${series.name} in ${series.unit}, measured and ` +
    `predicted, up to ${series.time[Math.max(steps - 1, 0)]}`);
  parts.whole.setAttribute("aria-label", `Chart of the whole series, ${series.time[0]} to ` +
    `${series.time.at(-1)}, of which ${steps} steps have been streamed`);
  parts.distance.setAttribute("aria-label", `Chart of the difference from the reference: ${found}, ` +
    `bound ${scientific(series.bound)} ${series.unit}`);
}

const nextFrame = () => new Promise(requestAnimationFrame);

function start() {
  running = true;
  next(stream);
}

async function stream() {
  const count = series.samples.length;
  if (running && run.steps === count) reset();
  tell(show());
  let before = await nextFrame();
  let due = 0;
  while (running && run.steps < count) {
    const began = performance.now();
    const rate = Number(parts.speed.value); // NaN: as fast as possible
    due = Number.isNaN(rate) ? count : due + (rate * Math.min(began - before, 100)) / 1000;
    before = began;
    while (running && due >= 1 && run.steps < count && performance.now() - began < FRAME_MS) {
      await step();
      due -= 1;
    }
    if (Number.isNaN(rate)) due = 0;
    show();
    await nextFrame();
  }
  running = false;
  tell(show());
}

function failed(error) {
  running = false;
  if (run) show(); // as far as it came
  broken = true;
  parts.result.dataset.state = "failed";
  parts.result.dataset.message = error.message;
  parts.status.textContent = `This does not work: ${error.message}.`;
  parts.status.className = "failed";
  parts.status.setAttribute("role", "alert");
  parts.toggle.disabled = parts.reset.disabled = true;
}

try {
  await load();
  reset();
  document.title = parts.title.textContent = series.title;
  parts.ahead.textContent = `predicted ${series.horizon} ${series.step} before`;
  for (const option of parts.speed.options) {
    option.textContent = option.textContent.replace("steps", `${series.step}s`);
  }
  parts.about.textContent = `${series.about} ONNX Runtime Web ${ort.env.versions.web}, WebAssembly ` +
    `on one thread. ${globalThis.crossOriginIsolated ? "" : "This page is not isolated, so the " +
      "browser's clock counts in tenths of a millisecond: node serve.mjs isolates it."}`;
  if (asked.has("speed")) parts.speed.value = asked.get("speed");
  parts.toggle.disabled = parts.reset.disabled = false;
  parts.toggle.addEventListener("click", () => {
    if (running) running = false;
    else start();
  });
  parts.reset.addEventListener("click", () => {
    running = false;
    next(reset);
    next(() => tell(show()));
  });
  new ResizeObserver(show).observe(document.querySelector("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  tell(show());
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches || asked.get("start") === "no";
  if (!still) start();
} catch (error) {
  failed(error);
}
