// The demo page: reads a message with all tasks as it is typed, and learns new ones.
import { load } from "../dist/index.js";
import { bars, curve, element, marked, percent } from "./draw.js";
import { readLesson, writeLine } from "./lesson.js";

const $ = (id) => document.getElementById(id);
const BUNDLE = new URLSearchParams(location.search).get("bundle") ?? "bundle";
const CURVE = [0.5, 0.75];

let model;
let megabytes = 0;
let working = Promise.resolve();
let waiting = false;
const off = new Set();

/** Runs one thing after the other: the runtime computes one thing at a time. */
function next(action) {
  working = working.then(action).catch(refuse);
  return working;
}

function refuse(error) {
  $("refused").textContent = String(error.message ?? error);
}

async function open(source, said) {
  const began = performance.now();
  const opened = await load(source);
  await model?.close();
  model = opened;
  off.clear();
  megabytes = said ?? megabytes;
  $("text").disabled = $("learn").disabled = false;
  $("status").textContent =
    `${model.name}, ${model.precision}: ready after ${((performance.now() - began) / 1000).toFixed(1)} s`;
  showTasks();
  await read();
}

/** The files of a bundle by address; counts what they weigh. */
function counted(address) {
  const base = new URL(`${address.replace(/\/$/, "")}/`, location.href);
  let bytes = 0;
  return async (file, limit) => {
    const response = await fetch(new URL(file, base));
    if (!response.ok) throw new Error(`${file}: the server answers ${response.status}`);
    const content = new Uint8Array(await response.arrayBuffer());
    if (content.length > limit) throw new Error(`${file} has ${content.length} bytes, expected at most ${limit}`);
    bytes += content.length;
    megabytes = bytes / 1e6;
    return content;
  };
}

function showTasks() {
  $("tasks").replaceChildren(
    ...Object.keys(model.tasks).map((name) => {
      const box = element("input", {
        type: "checkbox",
        checked: !off.has(name),
        onchange: () => toggle(name, box.checked),
      });
      return element(
        "label",
        {},
        box,
        ` ${name} `,
        element(
          "button",
          { type: "button", class: "quiet", "aria-label": `Remove ${name}`, onclick: () => next(() => remove(name)) },
          "×",
        ),
      );
    }),
  );
}

function toggle(name, on) {
  if (on) off.delete(name);
  else off.add(name);
  next(read);
}

async function remove(name) {
  model.remove(name);
  showTasks();
  await read();
}

async function read() {
  const text = $("text").value;
  const tasks = Object.keys(model.tasks).filter((name) => !off.has(name) && model.tasks[name] !== "qa");
  if (!tasks.length) {
    $("found").replaceChildren(element("p", {}, "No task is on. Teach one, or drop a task's file."));
    costs(0, 0, 0);
    return;
  }
  const began = performance.now();
  const [found] = await model.predict([text], { tasks });
  const all = performance.now() - began;
  $("found").replaceChildren(
    ...tasks.flatMap((name) => [
      element("h3", {}, name),
      Array.isArray(found[name]) ? marked(text, found[name]) : bars(found[name].probabilities),
    ]),
  );
  // What one task alone takes, for the comparison, after the answer is on the page.
  const between = performance.now();
  await model.predict([text], { tasks: tasks.slice(0, 1) });
  costs(tasks.length, all, performance.now() - between);
}

function costs(count, all, one) {
  const rows = [
    ["Fetched once", `${megabytes.toFixed(1)} MB`],
    [`${count} tasks, one text`, `${all.toFixed(0)} ms`],
    ["of which the first task", `${one.toFixed(0)} ms`],
    [`${count} separate models`, `${(count * megabytes).toFixed(0)} MB, ${(count * one).toFixed(0)} ms`],
  ];
  $("costs").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

async function learn() {
  const name = $("name").value.trim();
  const { texts, labels } = readLesson($("examples").value);
  $("refused").textContent = "";
  const report = await model.fit(name, texts, labels, { replace: true });
  const score = report.family === "ner" ? "f1" : "accuracy";
  const file = model.taskFile(name);
  showTasks();
  await read();
  showLesson(report, texts, labels, score);
  // The curve comes after the answer, on a part of the examples of each label.
  const points = [];
  for (const share of CURVE) {
    const part = texts.map((_, n) => n).filter((n) => (n * share) % 1 < share);
    try {
      const smaller = await model.fit(
        name,
        part.map((n) => texts[n]),
        part.map((n) => labels[n]),
        { replace: true },
      );
      points.push({ count: part.length, value: smaller.scores[score] });
    } catch {
      // Too few to learn anything from.
    }
  }
  model.add(name, file, { replace: true });
  points.push({ count: texts.length, value: report.scores[score] });
  $("learnt").append(curve(points, score), element("small", {}, `Held-out ${score} by the number of examples`));
}

function showLesson(report, texts, labels, score) {
  const wrong = texts
    .map((text, n) => ({ text, gold: labels[n], said: report.heldOut[n] }))
    .map((one) => ({
      ...one,
      guess: Array.isArray(one.said)
        ? one.said.map(({ start, end, label }) => ({ start, end, label }))
        : one.said.label,
    }))
    .filter(({ gold, guess }) => JSON.stringify(gold) !== JSON.stringify(guess));
  const address = URL.createObjectURL(new Blob([model.taskFile(report.task)]));
  $("learnt").replaceChildren(
    element("h3", {}, `${report.task}: ${percent(report.scores[score])} ${score} on held-out examples`),
    element(
      "p",
      {},
      `Learnt from ${report.examples} examples in ${report.milliseconds.toFixed(0)} ms. `,
      element(
        "a",
        { href: address, download: `${report.task}.safetensors` },
        `Save the task file (${(report.bytes / 1000).toFixed(0)} kB)`,
      ),
    ),
    ...(wrong.length ? [element("p", {}, "Wrong when held out; a click takes the prediction as the label:")] : []),
    element(
      "ul",
      {},
      ...wrong
        .slice(0, 8)
        .map(({ text, gold, guess }) =>
          element(
            "li",
            {},
            element("span", { class: "wrong" }, writeLine(text, gold)),
            " → ",
            element(
              "button",
              { type: "button", class: "quiet", onclick: () => correct(text, gold, guess) },
              writeLine(text, guess),
            ),
          ),
        ),
    ),
  );
}

function correct(text, gold, guess) {
  const lines = $("examples").value.split("\n");
  const place = lines.findIndex((line) => line.trim() === writeLine(text, gold));
  if (place >= 0) lines[place] = writeLine(text, guess);
  $("examples").value = lines.join("\n");
  next(learn);
}

async function take(files) {
  $("refused").textContent = "";
  const task = files.find((file) => file.name.endsWith(".safetensors"));
  if (files.some((file) => file.name === "manifest.json")) {
    await open(files, files.reduce((sum, file) => sum + file.size, 0) / 1e6);
  } else if (task) {
    model.add(task.name.replace(/\.safetensors$/, ""), new Uint8Array(await task.arrayBuffer()), { replace: true });
    showTasks();
    await read();
  } else throw new Error("That is neither a task's file (.safetensors) nor the folder of a bundle.");
}

/** The files of what was dropped, folders included. */
async function dropped(items) {
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      Object.defineProperty(file, "webkitRelativePath", { value: entry.fullPath.slice(1) });
      return [file];
    }
    const reader = entry.createReader();
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    return (await Promise.all(entries.map(walk))).flat();
  };
  return (await Promise.all(Array.from(items, (item) => walk(item.webkitGetAsEntry())))).flat();
}

$("text").addEventListener("input", () => {
  if (waiting) return;
  waiting = true;
  next(() => {
    waiting = false;
    return read();
  });
});
$("lesson").addEventListener("submit", (event) => {
  event.preventDefault();
  next(learn);
});
$("put").addEventListener("click", () => {
  const area = $("examples");
  const { selectionStart: start, selectionEnd: end, value } = area;
  const label = $("mark").value.trim();
  if (start < end && label) area.setRangeText(`[${label}: ${value.slice(start, end)}]`);
});
for (const id of ["file", "folder"])
  $(id).addEventListener("change", ({ target }) => next(() => take([...target.files])));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const files = dropped(event.dataTransfer.items);
  next(async () => take(await files));
});

next(async () => {
  try {
    await open(counted(BUNDLE));
  } catch (error) {
    $("status").textContent = "There is no encoder yet: drop the folder of a bundle here.";
    throw error;
  }
});
