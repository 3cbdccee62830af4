// The model, in a thread of its own so that the page never waits: it does one thing after the other.
import * as ort from "./runtime/ort.wasm.bundle.min.mjs";
import { load } from "./lib/index.js";

const CURVE = "points-of-the-curve";
let model;
let working = Promise.resolve();

const ACTIONS = {
  /** Opens a bundle by its address or its files; the one before stays if this one is refused. */
  async open({ source, publicKey }) {
    const began = performance.now();
    const opened = await load(source, publicKey ? { ort, publicKey } : { ort });
    await model?.close();
    model = opened;
    return { ...facts(), precision: model.precision, milliseconds: performance.now() - began };
  },

  async predict({ text, question, tasks }) {
    const before = model.spent;
    const began = performance.now();
    const asked = tasks.filter((name) => model.tasks[name] === "qa");
    const own = tasks.filter((name) => model.tasks[name] !== "qa");
    const [found] = own.length ? await model.predict([text], { tasks: own }) : [{}];
    if (asked.length && question) {
      const [answers] = await model.predict([`${question.replaceAll("\n", " ")}\n${text}`], { tasks: asked });
      Object.assign(found, answers);
    }
    const { trunk, branches, runs } = model.spent;
    const spent = { trunk: trunk - before.trunk, branches: branches - before.branches, runs: runs - before.runs };
    return { found, spent: { ...spent, rest: performance.now() - began - spent.trunk - spent.branches } };
  },

  async fit({ name, texts, labels, family }) {
    const report = await model.fit(name, texts, labels, { family, replace: true });
    return { report, file: model.taskFile(name), ...facts() };
  },

  /** The scores of a task that is learnt from a part of the examples, or nothing where there is too little. */
  async part({ texts, labels, family }) {
    try {
      const { scores } = await model.fit(CURVE, texts, labels, { family, replace: true });
      return scores;
    } catch {
      return null;
    } finally {
      if (CURVE in model.tasks) model.remove(CURVE);
    }
  },

  add({ name, content }) {
    model.add(name, content, { replace: true });
    return facts();
  },

  remove({ name }) {
    model.remove(name);
    return facts();
  },
};

function facts() {
  return { name: model.name, tasks: model.tasks, sizes: model.sizes };
}

onmessage = ({ data: { number, does, given } }) => {
  working = working.then(async () => {
    try {
      postMessage({ number, found: await ACTIONS[does](given) });
    } catch (error) {
      postMessage({ number, error: String(error.message ?? error) });
    }
  });
};
