// Opens the page in a real browser, streams the series as fast as possible, reads the figures off
// the page and prints one line of JSON: `node check.mjs [--phone] [--screenshot FILE]`.
// Exit code: 0; 1 where the page is wrong; 2 where it cannot be opened.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";

import { serve } from "./serve.mjs";

const USAGE = `\
node check.mjs [options]
    --phone              a screen of 360 x 740, not 1120 x 880
    --dark               the dark colours
    --screenshot FILE    a picture of the page after the stream's end
    --model FILE         another model.onnx
    --series FILE        another series.json
    --seconds N          give up after so long (60)
FASTLSTM_CHROMIUM names the browser; else chromium, chromium-browser or google-chrome of PATH.`;
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

function browserPath() {
  if (process.env.FASTLSTM_CHROMIUM) return process.env.FASTLSTM_CHROMIUM;
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        continue;
      }
    }
  }
  throw new Error("no browser found: install chromium, or name one in FASTLSTM_CHROMIUM");
}

/** Whether the page fits its screen: nothing beside it, every control whole and large enough. */
function layout() {
  const { clientWidth, scrollWidth } = document.documentElement;
  const controls = [...document.querySelectorAll("button, select")].map((control) => {
    const { left, top, right, bottom } = control.getBoundingClientRect();
    const onScreen = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
    const middle = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    return { id: control.id, visible: onScreen && middle === control, height: bottom - top };
  });
  return { width: clientWidth, content_width: scrollWidth, controls };
}

async function main() {
  const { values } = parseArgs({
    options: {
      phone: { type: "boolean" },
      dark: { type: "boolean" },
      screenshot: { type: "string" },
      model: { type: "string" },
      series: { type: "string" },
      seconds: { type: "string", default: "60" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    console.error(USAGE);
    return 0;
  }
  const { chromium } = await import("playwright-core").catch(() => {
    throw new Error('playwright-core is not installed: run "npm ci --ignore-scripts" in ' +
      "examples/browser");
  });
  const instead = {};
  if (values.model) instead["/model.onnx"] = values.model;
  if (values.series) instead["/series.json"] = values.series;
  const { server, address } = await serve(0, "127.0.0.1", instead);
  const browser = await chromium.launch({ executablePath: browserPath(), args: ARGUMENTS });
  try {
    const page = await browser.newPage({
      viewport: values.phone ? { width: 360, height: 740 } : { width: 1120, height: 880 },
      deviceScaleFactor: values.phone ? 2 : 1,
      isMobile: Boolean(values.phone),
      hasTouch: Boolean(values.phone),
      colorScheme: values.dark ? "dark" : "light",
    });
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
    // Started by hand, as a reader would: the button is part of what is checked.
    await page.goto(`${address}?speed=max&start=no`);
    const at = (state) => page.waitForSelector(state, { timeout: 1000 * Number(values.seconds) });
    await at('#result:is([data-state="paused"], [data-state="failed"])');
    if (await page.isEnabled("#toggle")) await page.click("#toggle");
    await at('#result:is([data-state="done"], [data-state="failed"])');
    const found = await page.$eval("#result", (element) => ({ ...element.dataset }));
    const figures = {
      browser: `Chromium ${browser.version()}`,
      runtime: found.runtime,
      state: found.state,
      message: found.message,
      steps: Number(found.steps),
      difference: Number(found.difference),
      bound: Number(found.bound),
      verdict: found.verdict,
      median_us: Number(found.medianUs),
      p99_us: Number(found.p99Us),
      shown: await page.innerText("#difference"),
      status: await page.innerText("#status"),
      complaints,
      layout: await page.evaluate(layout),
    };
    if (values.screenshot) await page.screenshot({ path: values.screenshot });
    console.log(JSON.stringify(figures));
    return found.state === "done" && found.verdict === "ok" && !complaints.length ? 0 : 1;
  } finally {
    await browser.close();
    server.close();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`check.mjs: ${error.message}`);
  process.exitCode = 2;
}
