// ONNX Runtime Web in a real browser, driven by JSON lines on standard input; sessions.mjs has the
// messages, and runs in the page. node web_runner.mjs WEB PLAYWRIGHT BROWSER: the folders of the
// packages onnxruntime-web and playwright-core, and Chromium. The first line of the answer names
// the version; it ends when standard input does, and the browser with it.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const [web, playwright, executablePath] = process.argv.slice(2);
const PAGE = `<!doctype html>
<link rel="icon" href="data:," />
<script type="module">
  import * as ort from "/ort/ort.wasm.min.mjs";
  import { answering } from "/sessions.mjs";
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  globalThis.answer = answering(ort, {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
  });
  globalThis.version = ort.env.versions.web;
</script>`;
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const server = createServer(async ({ url }, response) => {
  const send = (type, body) => response.writeHead(200, { "Content-Type": type }).end(body);
  try {
    if (url === "/") return send("text/html", PAGE);
    const wasm = url.endsWith(".wasm");
    const file = url === "/sessions.mjs"
      ? fileURLToPath(new URL("sessions.mjs", import.meta.url))
      : join(web, "dist", basename(url));
    return send(wasm ? "application/wasm" : "text/javascript", await readFile(file));
  } catch {
    return response.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
const page = await browser.newPage();
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

async function open() {
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  return page.waitForFunction(() => globalThis.version).then((version) => version.jsonValue());
}

say({ version: `${await open()}, Chromium ${browser.version()}` });
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await page.evaluate((message) => globalThis.answer(message), JSON.parse(line));
  if (answer.ruined) await open(); // every session is lost, and says so when it is asked
  say(answer);
}
await browser.close();
server.close();
