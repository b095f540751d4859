// ONNX Runtime for Node.js, driven by JSON lines on standard input; sessions.mjs has the messages.
// node node_runner.mjs FOLDER, that of the package onnxruntime-node. The first line of the answer
// names the version; it ends when standard input does.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import { answering } from "./sessions.mjs";

const [folder] = process.argv.slice(2);
const ort = createRequire(import.meta.url)(folder);
const answer = answering(ort, {
  executionProviders: ["cpu"],
  graphOptimizationLevel: "all",
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: "sequential",
  logSeverityLevel: 3,
});
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

say({ version: `${ort.env.versions.node}, Node.js ${process.versions.node}` });
for await (const line of createInterface({ input: process.stdin })) {
  say(await answer(JSON.parse(line)));
}
