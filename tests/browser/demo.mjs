// Uses the demo page as visitors do, with Playwright, and writes what it shows: node demo.mjs ORDER.json ANSWER.json
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import axe from "../../web/node_modules/axe-core/axe.js";
import { chromium } from "../../web/node_modules/playwright-core/index.mjs";

const [order, answer] = process.argv.slice(2);
const { address, browser: executablePath, folder, text, foreign, tiny, damaged, key } = JSON.parse(readFileSync(order, "utf8"));
const SEEN = { timeout: 60_000 };
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const found = { console: [], requests: [], axe: [], wide: {} };

async function open(viewport, colorScheme, more = "") {
  const context = await browser.newContext({ viewport, colorScheme });
  const page = await context.newPage();
  page.on("console", (message) => found.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => found.console.push(String(error)));
  page.on("request", (request) => found.requests.push(request.url()));
  await page.goto(address + more);
  await page.waitForSelector("#found h3", SEEN);
  return page;
}

/** Milliseconds of processors that the browser has taken, all of its processes together; in steps of ten. */
function taken() {
  const parents = new Map();
  const times = new Map();
  for (const pid of readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
      parents.set(pid, fields[1]);
      times.set(pid, 10 * (Number(fields[11]) + Number(fields[12])));
    } catch {
      // It has ended.
    }
  }
  const ours = (pid) => parents.get(pid) === String(process.pid) || (parents.has(pid) && ours(parents.get(pid)));
  return [...times].reduce((sum, [pid, time]) => sum + (ours(pid) ? time : 0), 0);
}

async function picture(page, name, selector) {
  const where = selector ? page.locator(selector) : page;
  await where.screenshot({ path: join(folder, `${name}.png`) });
}

/** Violations of the rules for accessible pages, contrast included. */
async function audit(page, where) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  found.axe.push(...violations.map(({ id, nodes }) => `${where}: ${id} at ${nodes.map((node) => node.target).join(", ")}`));
}

async function refused(page, action) {
  await action();
  await page.waitForSelector("#refused:not([hidden])", SEEN);
  const said = await page.textContent("#refused span");
  await page.click("#refused button");
  return said;
}

const shown = (page) =>
  page.evaluate(() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    return {
      tasks: all("#found h3").map((title) => title.textContent),
      marks: all("#found mark").map((mark) => [mark.firstChild.textContent, mark.lastChild.textContent]),
      bars: all("#found .bar").map((bar) => [bar.firstChild.textContent, bar.lastChild.textContent]),
      boxes: all("#tasks input").length,
    };
  });

const learnt = async (page) => {
  await page.waitForSelector("#curve svg", SEEN);
  return page.textContent("#learnt");
};

const page = await open({ width: 1024, height: 800 }, "light");
// The time in the page, from the start of loading to the first prediction.
const ready = [];
for (let n = 0; n < 3; n++) {
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#found h3") && performance.mark("seen"), null, { ...SEEN, polling: "raf" });
  ready.push(await page.evaluate(() => performance.getEntriesByName("seen")[0].startTime));
}
await page.locator("#costs .total").last().filter({ hasText: "ms" }).waitFor(SEEN);
await picture(page, "demo-desktop-light");
await audit(page, "light");

const before = taken();
// Keystrokes: from the event to the new prediction on the page.
const keys = await page.evaluate(async (text) => {
  const times = [];
  const area = document.getElementById("text");
  for (let end = text.length - 25; end <= text.length; end++) {
    const began = performance.now();
    const drawn = new Promise((resolve) => {
      const observer = new MutationObserver(() => {
        observer.disconnect();
        resolve();
      });
      observer.observe(document.getElementById("found"), { childList: true });
    });
    area.value = text.slice(0, end);
    area.dispatchEvent(new Event("input", { bubbles: true }));
    await drawn;
    times.push(performance.now() - began);
  }
  return times;
}, text);
const cost = (taken() - before) / keys.length;
found.read = await shown(page);
found.costs = await page.textContent("#costs");

await page.uncheck("#tasks input >> nth=0");
await page.waitForFunction(() => document.querySelectorAll("#found h3").length === 3, null, SEEN);
await page.check("#tasks input >> nth=0");

// A task from labels, once as it is, then with a wrong label that a click corrects.
await page.click("#learn");
found.learnt = await learnt(page);
await page.waitForFunction(() => document.querySelectorAll("#found h3").length === 5, null, SEEN);
found.taught = await shown(page);
const fits = [];
for (let n = 0; n < 3; n++) {
  await page.evaluate(() => document.querySelector("#curve").replaceChildren());
  await page.click("#learn");
  fits.push(Number(/in (\d+) ms/.exec(await learnt(page))[1]));
}
found.milliseconds = { ready: median(ready), ready_best: Math.min(...ready), keystroke: median(keys), keystroke_best: Math.min(...keys), keystroke_processors: cost, fit: median(fits), fit_best: Math.min(...fits) };
const [saved] = await Promise.all([page.waitForEvent("download"), page.locator("#learnt a[download]").first().click()]);
await saved.saveAs(join(folder, "mail.safetensors"));
found.command = await page.textContent("#learnt pre");
const first = page.locator("#examples li").first();
await first.locator("select").selectOption("praise");
await first.locator(".wrong strong", { hasText: "delivery" }).waitFor(SEEN);
await page.waitForSelector("#curve svg", SEEN);
found.wrong = await page.textContent("#wrong");
await page.setViewportSize({ width: 900, height: 800 });
await picture(page, "demo-teach-light", "section.wide >> nth=0");
await first.locator(".wrong button").click();
found.corrected = await first.locator("select").inputValue();
await first.locator(".wrong").waitFor({ state: "detached", ...SEEN });

// Any number of labels: one more by a click.
await page.locator("#presets button", { hasText: "reviews" }).click();
await page.locator("#examples li").first().locator("button", { hasText: "price" }).click();
await page.click("#learn");
found.reviews = await learnt(page);
const [reviews] = await Promise.all([page.waitForEvent("download"), page.locator("#learnt a[download]").last().click()]);
await reviews.saveAs(join(folder, "reviews.jsonl"));
found.several = (await shown(page)).bars.slice(-3);

// A task of entities, by keyboard alone, without a network.
await page.context().setOffline(true);
await page.locator("#presets button", { hasText: "nothing" }).focus();
await page.keyboard.press("Enter");
await page.fill("#name", "towns");
await page.locator("[name=kind][value=ner]").focus();
await page.keyboard.press("Space");
await page.locator("#new-label").focus();
await page.keyboard.type("town");
await page.keyboard.press("Enter");
await page.fill("#new-text", "Oslo is cold\nWe met in New York\nNo town here\nFrom Lima with love\nI saw Cairo");
await page.locator("#add-text").press("Enter");
for (const [row, word, count] of [[0, 0, 1], [1, 3, 2], [3, 1, 1], [4, 2, 1]]) {
  await page.locator("#examples .words").nth(row).locator("[tabindex='0']").focus();
  for (let n = 0; n < word; n++) await page.keyboard.press("ArrowRight");
  for (let n = 0; n < count; n++) {
    if (n) await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Space");
  }
}
await page.locator("#learn").press("Enter");
found.towns = await learnt(page);
const [lines] = await Promise.all([page.waitForEvent("download"), page.locator("#learnt a[download]").last().click()]);
await lines.saveAs(join(folder, "towns.jsonl"));
await page.context().setOffline(false);

// Files: damaged, foreign and whole ones, and bundles.
const bytes = readFileSync(join(folder, "mail.safetensors"));
const choose = (name, content) => page.setInputFiles("#file", { name, mimeType: "application/octet-stream", buffer: content });
found.refusals = {
  cut: await refused(page, () => choose("cut.safetensors", bytes.subarray(0, -5))),
  foreign: await refused(page, () => choose("foreign.safetensors", readFileSync(foreign))),
  other: await refused(page, () => choose("notes.txt", Buffer.from("a"))),
  damaged: await refused(page, () => page.setInputFiles("#folder", damaged)),
};
await page.evaluate((content) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(content)], "dropped.safetensors"));
  dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}, [...bytes]);
await page.locator("#found h3", { hasText: "dropped" }).waitFor(SEEN);
found.after = await shown(page);
await page.locator("summary").click();
await page.fill("#key", "ab".repeat(32));
found.refusals.key = await refused(page, () => page.setInputFiles("#folder", tiny));
await page.fill("#key", key);
await page.setInputFiles("#folder", tiny);
await page.locator("#status", { hasText: "signature" }).waitFor(SEEN);
await page.locator("#found h3", { hasText: /^answers$/ }).waitFor(SEEN);
found.own = await page.textContent("#status");
found.ownTasks = (await shown(page)).tasks;
await page.context().close();

for (const [name, viewport, scheme] of [
  ["desktop-dark", { width: 1200, height: 900 }, "dark"],
  ["phone-light", { width: 390, height: 844 }, "light"],
  ["phone-dark", { width: 360, height: 740 }, "dark"],
]) {
  const other = await open(viewport, scheme);
  await other.locator("#costs .total").last().filter({ hasText: "ms" }).waitFor(SEEN);
  await picture(other, `demo-${name}`);
  if (name !== "desktop-dark") {
    await other.locator("#presets button").nth(1).click();
    await other.click("#learn");
    await learnt(other);
    await picture(other, `demo-teach-${name}`, "section.wide >> nth=0");
  }
  await audit(other, name);
  found.wide[name] = (await other.evaluate(() => document.documentElement.scrollWidth)) - viewport.width;
  await other.context().close();
}
await browser.close();
writeFileSync(answer, JSON.stringify(found));
