// Presses the page's buttons as a hurried reader would, and prints what the page says each time.
// node press_buttons.mjs FOLDER BROWSER: the folder of the page, and Chromium.

import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, executablePath] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(join(folder, path)));
const { serve } = await load("serve.mjs");
const { chromium } = await load("node_modules/playwright-core/index.mjs");
const { server, address } = await serve();
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage({ viewport: { width: 360, height: 740 } });
const complaints = [];
page.on("pageerror", (error) => complaints.push(error.message));

const seen = {};
async function look(name) {
  const result = await page.$eval("#result", (element) => ({ ...element.dataset }));
  seen[name] = { ...result, toggle: await page.innerText("#toggle"), steps: Number(result.steps) };
}
const state = (name) => page.waitForSelector(`#result[data-state="${name}"]`, { timeout: 30000 });
const steps = (count) =>
  page.waitForFunction((n) => Number(document.querySelector("#result").dataset.steps) >= n, count);

await page.goto(address);
await state("running");
await steps(20);
await look("by itself");
await page.click("#toggle");
await state("paused");
await look("paused");
await page.waitForTimeout(150);
await look("still paused");
// Faster than a picture: no two streams may run at once in one session.
await page.evaluate(() => {
  for (let k = 0; k < 5; k += 1) document.querySelector("#toggle").click();
});
await steps(seen["still paused"].steps + 20);
await look("goes on");
await page.evaluate(() => {
  document.querySelector("#reset").click();
  document.querySelector("#toggle").click();
});
await page.click("#reset");
await state("paused");
await steps(0);
await look("reset");
await page.selectOption("#speed", "max");
await page.click("#toggle");
await state("done");
await look("done");
await page.click("#toggle");
await state("running");
await state("done");
await look("again");
await browser.close();
server.close();
console.log(JSON.stringify({ seen, complaints }));
