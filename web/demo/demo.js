// The page: reads a message with all tasks as it is typed; teach.js learns new ones.
import { answered, bars, costs, element, marked, percent } from "./draw.js";
import { teach } from "./teach.js";

const $ = (id) => document.getElementById(id);
const MESSAGES = [
  "Ann moved the dentist appointment to Friday at 9:40, 27 Chandler Street.",
  "We're out of dishwasher salt and paper towels, 2 packs please, Krämer & Sohn has them for €4.90.",
  "Your account will be erased tonight. Confirm your card number at the link to keep your photos.",
  "The bus is stuck in snow again, start the rehearsal in the Old Mill without me.",
  "i owe lena for the pizza, send her 14 bucks before friday",
];
const READINGS = 9;

const worker = new Worker("worker.js", { type: "module" });
const asked = new Map();
const off = new Set();
let facts = { name: "", tasks: {}, sizes: {} };
let readings = [];
let warm = false;
let pending = false;

worker.onmessage = ({ data: { number, found, error } }) => {
  const { resolve, reject } = asked.get(number);
  asked.delete(number);
  if (error === undefined) resolve(found);
  else reject(new Error(error));
};
worker.onerror = () => refuse(new Error("The model could not be started. The browser must be able to run WebAssembly."));

/** Asks the worker, which does one thing after the other. */
function ask(does, given = {}) {
  return new Promise((resolve, reject) => {
    const number = performance.now() + Math.random();
    asked.set(number, { resolve, reject });
    worker.postMessage({ number, does, given });
  });
}

function refuse(error) {
  $("refused").firstElementChild.textContent = error ? String(error.message ?? error) : "";
  $("refused").hidden = !error;
}

async function open(source, publicKey) {
  const found = await ask("open", { source, publicKey });
  off.clear();
  know(found);
  $("text").disabled = $("learn").disabled = false;
  const seconds = (found.milliseconds / 1000).toFixed(1);
  $("status").textContent =
    `Ready: ${found.name}, ${found.precision}, after ${seconds} s.` + (publicKey ? " Its signature is good." : "");
  warm = false;
  await read();
  // The first pass prepares the runtime; what it took says nothing of the next.
  readings = [];
  warm = true;
  await read();
}

/** Takes in what the model is now. */
function know(found) {
  facts = { name: found.name, tasks: found.tasks, sizes: found.sizes };
  readings = [];
  $("tasks").replaceChildren(
    ...Object.entries(facts.tasks).map(([name, family]) => {
      const box = element("input", { type: "checkbox", checked: !off.has(name), onchange: () => toggle(name, box.checked) });
      const gone = { type: "button", class: "quiet", "aria-label": `Remove ${name}`, onclick: () => remove(name) };
      return element("span", { class: "chip", title: family }, element("label", {}, box, ` ${name}`), element("button", gone, "×"));
    }),
  );
  $("asking").hidden = !Object.values(facts.tasks).includes("qa");
}

function toggle(name, on) {
  if (on) off.delete(name);
  else off.add(name);
  readings = [];
  read();
}

async function remove(name) {
  know(await ask("remove", { name }));
  await read();
}

/** Reads the message; what is typed meanwhile is read once, afterwards. */
async function read() {
  if (pending) {
    pending = "again";
    return;
  }
  pending = true;
  try {
    const text = $("text").value;
    const tasks = Object.keys(facts.tasks).filter((name) => !off.has(name));
    if (tasks.length) {
      const { found, spent } = await ask("predict", { text, question: $("question").value.trim(), tasks });
      show(text, found, spent, tasks.length);
    } else {
      const todo = Object.keys(facts.tasks).length ? "Every task is off." : "There is no task yet. Teach one below, or drop a task's file.";
      $("found").replaceChildren(element("p", { class: "soft" }, todo));
      $("costs").replaceChildren();
    }
  } catch (error) {
    refuse(error);
  }
  const again = pending === "again";
  pending = false;
  if (again) await read();
}

function show(text, found, spent, count) {
  $("found").replaceChildren(
    ...Object.entries(found).flatMap(([name, said]) => [element("h3", {}, name), drawn(text, said)]),
  );
  readings = [...readings, spent].slice(-READINGS);
  const middle = (key) => readings.map((one) => one[key]).sort((a, b) => a - b)[readings.length >> 1];
  const times = Object.fromEntries(["trunk", "branches", "rest"].map((key) => [key, middle(key)]));
  $("costs").replaceChildren(costs({ count, sizes: facts.sizes, spent: { ...times, runs: spent.runs, warm } }));
  clearTimeout(show.later);
  // Read out when nothing was typed for a while.
  show.later = setTimeout(() => ($("summary").textContent = Object.entries(found).map(spoken).join(". ")), 1000);
}

function drawn(text, said) {
  if (Array.isArray(said)) return marked(text, said);
  return "answer" in said ? answered(text, said) : bars(said);
}

function spoken([name, said]) {
  if (Array.isArray(said)) return `${name}: ${said.map(({ text, label }) => `${text}, ${label}`).join("; ") || "nothing"}`;
  if ("answer" in said) return `${name}: ${said.answer || "no answer"}`;
  if (said.labels) return `${name}: ${said.labels.join(", ") || "nothing"}`;
  return said.label === null ? `${name}: nothing` : `${name}: ${said.label}, ${percent(said.score)}`;
}

/** Files that were dropped or chosen: tasks, or the folder of a bundle. */
async function take(files) {
  refuse();
  const manifest = [...files.keys()].find((path) => /(^|\/)manifest\.json$/.test(path));
  if (manifest !== undefined) {
    const folder = manifest.slice(0, -"manifest.json".length);
    const own = [...files].filter(([path]) => path.startsWith(folder)).map(([path, file]) => [path.slice(folder.length), file]);
    await open(Object.fromEntries(own), $("key").value.trim());
    return;
  }
  const tasks = [...files.values()].filter(({ name }) => name.endsWith(".safetensors"));
  if (!tasks.length) throw new Error("That is neither a task's file (.safetensors) nor the folder of a bundle (with manifest.json).");
  for (const file of tasks) {
    const name = file.name.replace(/\.safetensors$/, "");
    know(await ask("add", { name, content: new Uint8Array(await file.arrayBuffer()) }));
  }
  await read();
}

/** The files of what was dropped by their paths, folders included. */
async function dropped(items) {
  const found = new Map();
  const entries = [];
  for (const item of items) {
    const entry = item.webkitGetAsEntry?.();
    const file = entry ? null : item.getAsFile();
    if (entry) entries.push(entry);
    else if (file) found.set(file.name, file);
  }
  const walk = async (entry) => {
    if (entry.isFile) found.set(entry.fullPath.slice(1), await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const reader = entry.createReader();
      // A reader gives a hundred entries at a time.
      for (let own = [null]; own.length; await Promise.all(own.filter(Boolean).map(walk)))
        own = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    }
  };
  await Promise.all(entries.map(walk));
  return found;
}

for (const id of ["text", "question"]) $(id).addEventListener("input", read);
$("another").addEventListener("click", () => {
  $("text").value = MESSAGES[(MESSAGES.indexOf($("text").value) + 1) % MESSAGES.length];
  read();
});
$("refused").querySelector("button").addEventListener("click", () => refuse());
for (const id of ["file", "folder"]) {
  $(id).addEventListener("change", ({ target }) => {
    const files = Array.from(target.files, (file) => [file.webkitRelativePath || file.name, file]);
    target.value = "";
    take(new Map(files)).catch(refuse);
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  dropped(event.dataTransfer.items).then(take).catch(refuse);
});

teach({
  ask,
  refuse,
  message: () => $("text").value,
  bundle: () => facts.name,
  learnt: async (found) => {
    know(found);
    await read();
  },
});

const wanted = new URLSearchParams(location.search);
open(new URL(wanted.get("bundle") ?? "bundle", location.href).href, wanted.get("key") ?? "").catch((error) => {
  $("status").textContent = "There is no encoder yet: drop the folder of a bundle here.";
  refuse(error);
});
