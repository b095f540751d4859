// Streams a series through a model that fastlstm exported, one step at a time, in ONNX Runtime for
// Node.js: samples on standard input, one a line, or the check vector that the file itself holds.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import * as ort from "onnxruntime-node";

import { LiveModel, quantile } from "./live_model.mjs";

const USAGE = `\
node stream.mjs model.onnx < samples.csv      a prediction for each line, as it comes
    --expect reference.csv --bound 1e-5       ... compared with these values, line by line
node stream.mjs model.onnx --check            replay the check vector that the file holds
    --bound 1e-5                              ... with another bound than the file's own

Values of one line stand between commas. Exit code: 0; 1 where a difference is greater than the
bound; 2 where something cannot be read.`;

const ROUNDS = 20;

/** The numbers of one line; `where` goes into the message if they are not numbers. */
function numbers(line, where) {
  const values = line.split(",").map((text) => (text.trim() ? Number(text) : NaN));
  if (values.every(Number.isFinite)) return values;
  throw new Error(`${where}: expected numbers between commas, found ${JSON.stringify(line)}`);
}

/** Samples of standard input, each as soon as its line is there. */
async function* standardInput() {
  let count = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    count += 1;
    if (line.trim()) yield numbers(line, `standard input, line ${count}`);
  }
}

/** Expected outputs, one line for each sample. */
async function expectedValues(path) {
  const lines = (await readFile(path, "utf8")).split("\n").filter((line) => line.trim());
  return lines.map((line, k) => numbers(line, `${path}, line ${k + 1}`));
}

/** Run every sample; the greatest difference from `expected`, where given, and each step's time. */
async function stream(model, samples, expected, show) {
  const times = [];
  let difference = 0;
  for await (const sample of samples) {
    const row = expected?.[times.length];
    if (expected && row?.length !== model.outputSize) {
      throw new Error(
        `step ${times.length}: expected ${model.outputSize} reference values, found ` +
          `${row?.length ?? "none"}`,
      );
    }
    const start = performance.now();
    const y = await model.step(sample);
    times.push(1000 * (performance.now() - start));
    // Nine significant digits tell every float32 from its neighbours.
    if (show) console.log(Array.from(y, (value) => Number(value.toPrecision(9))).join(","));
    // Math.max hands a NaN on, so that one anywhere is a difference.
    row?.forEach((value, k) => (difference = Math.max(difference, Math.abs(y[k] - value))));
  }
  if (expected && times.length < expected.length) {
    throw new Error(`expected ${expected.length} samples, one for each reference value, ` +
      `found ${times.length}`);
  }
  return { times, difference };
}

/** The check vector, several times over from the initial state: 16 steps are few to time. */
async function checkVector(model) {
  const { check_input: samples, check_output: expected } = model.card;
  await stream(model, samples, expected, false); // until the runtime has warmed up
  const all = { times: [], difference: 0 };
  for (let round = 0; round < ROUNDS; round += 1) {
    model.reset();
    const { times, difference } = await stream(model, samples, expected, false);
    all.times.push(...times);
    all.difference = Math.max(all.difference, difference);
  }
  return all;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      check: { type: "boolean" },
      expect: { type: "string" },
      bound: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help || positionals.length !== 1) {
    console.error(USAGE);
    return values.help ? 0 : 2;
  }
  // One stream is latency-bound: a second thread would only wait for the first.
  const options = { executionProviders: ["cpu"], intraOpNumThreads: 1, interOpNumThreads: 1 };
  const model = await LiveModel.load(ort, await readFile(positionals[0]), options);
  const { card } = model;
  const expected = values.check
    ? card.check_output
    : values.expect && (await expectedValues(values.expect));
  const bound = Number(values.bound ?? (values.check ? card.check_bound : NaN));
  if (expected && !(bound > 0)) {
    throw new Error("expected a bound to compare with, found none: give --bound, such as 1e-5");
  }
  const { times, difference } = values.check
    ? await checkVector(model)
    : await stream(model, standardInput(), expected, true);
  if (!times.length) throw new Error("expected samples on standard input, found none");

  const time = `${quantile(times, 0.5).toFixed(1)} us a step (median), ` +
    `${quantile(times, 0.99).toFixed(1)} us (p99)`;
  if (!expected) {
    console.error(`${times.length} steps, ${time}`);
    return 0;
  }
  const good = difference <= bound;
  const report = values.check ? console.log : console.error;
  report(
    `${good ? "ok" : "WRONG"}: ${times.length} steps, greatest difference from the reference ` +
      `${difference.toExponential(2)}, bound ${bound.toExponential(2)}; ${time}`,
  );
  return good ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`stream.mjs: ${error.message}`);
  process.exitCode = 2;
}
