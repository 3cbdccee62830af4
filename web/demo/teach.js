// The lesson on the page: labels, examples, and what was learnt of them.
import { curve, element, hued, percent } from "./draw.js";
import * as lessons from "./lesson.js";

const $ = (id) => document.getElementById(id);
/** Shares of every label's examples of which the curve has points beside all of them. */
const SHARES = [0.4, 0.6, 0.8];
/** Up to so many examples, a point is the mean of this many parts of them. */
const [FEW, PARTS] = [40, 3];
const MOST_WRONG = 6;
const WAIT = 300;

let page;
let lesson;
/** For each example what was said of it when it was held out; empty where nothing was learnt of these examples. */
let heldOut = [];
/** Counts the changes, so that what was learnt of older examples is not shown. */
let change = 0;
/** Whether every change is learnt at once, as it is from the first time on. */
let live = false;
let later;

/** Makes the lesson work; `given` asks the worker, and says what the page shows. */
export function teach(given) {
  page = given;
  $("presets").replaceChildren(
    ...Object.keys(lessons.PRESETS).map((name) => element("button", { type: "button", class: "quiet", onclick: () => start(name) }, name)),
  );
  $("lesson").addEventListener("submit", (event) => {
    event.preventDefault();
    learn();
  });
  $("name").addEventListener("input", () => (lesson.name = $("name").value.trim()));
  for (const radio of document.querySelectorAll("[name=kind]")) {
    radio.addEventListener("change", () => {
      lessons.changeKind(lesson, radio.value);
      changed();
    });
  }
  entered("new-label", "add-label", (label) => {
    lessons.addLabel(lesson, label);
    lesson.active = label;
  });
  $("add-text").addEventListener("click", () => {
    for (const text of $("new-text").value.split("\n")) add(text);
    $("new-text").value = "";
  });
  $("add-message").addEventListener("click", () => add(page.message()));
  start(Object.keys(lessons.PRESETS)[0]);
}

function entered(field, button, action) {
  const take = () => {
    const value = $(field).value.trim();
    if (!value) return $(field).focus();
    action(value);
    $(field).value = "";
    changed();
  };
  $(button).addEventListener("click", take);
  $(field).addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    take();
  });
}

function start(preset) {
  lesson = lessons.lessonOf(lessons.PRESETS[preset]);
  live = false;
  $("name").value = lesson.name;
  for (const radio of document.querySelectorAll("[name=kind]")) radio.checked = radio.value === lesson.kind;
  $("learnt").replaceChildren(
    element("p", { class: "soft" }, "Learning takes about a second. What the task is worth stands here then, and follows every change."),
  );
  changed();
}

function add(text) {
  text = text.trim();
  if (!text || lesson.examples.some((example) => example.text === text)) return;
  if (lesson.kind === "classification" && !lesson.active) return page.refuse(new Error("Name a label first."));
  lesson.examples.push(lessons.exampleOf(text, lesson.active, lesson.active ? [lesson.active] : []));
  changed();
  $("examples").lastElementChild.scrollIntoView({ block: "nearest" });
}

/** Draws the lesson anew, and learns it again where it was learnt before. */
function changed() {
  change++;
  heldOut = [];
  drawLabels();
  drawExamples();
  const lack = lessons.missing(lesson);
  const ner = lesson.kind === "ner";
  $("hint").textContent =
    lack || (ner ? "Choose a label, then click words, or move with the arrow keys and press space." : "");
  clearTimeout(later);
  if (live && !lack) later = setTimeout(learn, WAIT);
}

function drawLabels() {
  $("labels").replaceChildren(
    ...lesson.labels.map((label) => {
      const choose = () => (lesson.active = label);
      const radio = element("input", { type: "radio", name: "label", checked: lesson.active === label, onchange: choose });
      const gone = {
        type: "button",
        class: "quiet",
        "aria-label": `Remove the label ${label}`,
        onclick: () => {
          lessons.removeLabel(lesson, label);
          changed();
        },
      };
      const chip = element("span", { class: "chip hued" }, element("label", {}, radio, ` ${label}`), element("button", gone, "×"));
      return hued(chip, label);
    }),
  );
}

function drawExamples() {
  const held = document.activeElement?.closest?.("[data-place]")?.dataset.place;
  $("examples").replaceChildren(...lesson.examples.map(exampleRow));
  if (held) $("examples").querySelector(`[data-place="${held}"]`)?.focus();
}

function exampleRow(example, n) {
  const gone = () => {
    lesson.examples.splice(n, 1);
    changed();
  };
  const tools = element("div", { class: "row" });
  if (lesson.kind === "classification") {
    const choose = ({ target }) => {
      example.label = target.value;
      changed();
    };
    tools.append(
      element(
        "select",
        { "aria-label": `Label of: ${example.text}`, onchange: choose, "data-place": `${n} label` },
        ...lesson.labels.map((label) => element("option", { selected: label === example.label }, label)),
      ),
    );
  }
  if (lesson.kind === "multilabel") tools.append(...lesson.labels.map((label) => switchOf(example, label, n)));
  tools.append(element("button", { type: "button", class: "quiet", "aria-label": `Remove: ${example.text}`, onclick: gone }, "×"));
  const shown = lesson.kind === "ner" ? wordRow(example, n) : element("p", {}, example.text);
  const row = element("li", { id: `example-${n}`, class: lesson.kind === "multilabel" && "several" }, shown, tools);
  const said = heldOut[n];
  if (said !== undefined && !lessons.agrees(lesson.kind, example, said)) row.append(correction(example, said));
  return row;
}

/** A button that gives an example a label, or takes it away. */
function switchOf(example, label, n) {
  const on = example.labels.includes(label);
  const change = () => {
    example.labels = on ? example.labels.filter((one) => one !== label) : [...example.labels, label];
    changed();
  };
  const button = { type: "button", class: on ? "switch hued" : "switch", "aria-pressed": String(on), onclick: change };
  return hued(element("button", { ...button, "data-place": `${n} ${label}` }, label), label);
}

/** The words of an example as buttons, of which the arrow keys choose one. */
function wordRow(example, n) {
  const row = element("div", { class: "words", role: "group", "aria-label": `Words of: ${example.text}` });
  const marks = new Map();
  for (const word of lessons.wordsOf(example.text)) {
    const span = example.spans.find(({ start, end }) => start < word.end && word.start < end);
    const label = span?.label;
    if (span && !marks.has(span)) {
      marks.set(span, hued(element("span", { class: "joined hued", title: label }), label));
      row.append(marks.get(span));
    }
    const place = marks.get(span) ?? row;
    if (!word.word) {
      place.append(word.text);
      continue;
    }
    const mark = () => {
      if (!lesson.active) return page.refuse(new Error("Name a label first."));
      lessons.toggle(example, word, lesson.active);
      changed();
    };
    const button = element(
      "button",
      { type: "button", "aria-pressed": String(Boolean(label)), onclick: mark, tabindex: "-1", "data-place": `${n} ${word.start}` },
      word.text,
    );
    if (label) button.setAttribute("aria-label", `${word.text}, ${label}`);
    place.append(button);
  }
  row.querySelector("button")?.setAttribute("tabindex", "0");
  row.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const buttons = [...row.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + (step ?? NaN)];
    if (!next) return;
    event.preventDefault();
    buttons.forEach((button) => button.setAttribute("tabindex", "-1"));
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  return row;
}

/** What was said of an example when it was held out, with a button that takes it for the truth. */
function correction(example, said) {
  const guess = lessons.inWords(lesson.kind, said);
  const take = () => {
    lessons.takeOver(lesson.kind, example, said);
    changed();
  };
  const button = { type: "button", class: "quiet", onclick: take, "aria-label": `That is right: ${guess}, for: ${example.text}` };
  return element("p", { class: "wrong" }, "Held out, it was taken for: ", element("strong", {}, guess), " ", element("button", button, "That is right"));
}

async function learn() {
  const lack = lessons.missing(lesson);
  if (lack) return page.refuse(new Error(lack));
  if (!$("lesson").reportValidity()) return;
  const now = change;
  const gold = lessons.goldOf(lesson);
  const { name, kind } = lesson;
  page.refuse();
  try {
    const found = await page.ask("fit", { name, ...gold });
    live = true;
    if (now === change) {
      heldOut = found.report.heldOut;
      drawExamples();
      showLearnt(found, kind);
    }
    await page.learnt(found);
    if (now === change) await showCurve(found.report, gold, now);
  } catch (error) {
    page.refuse(error);
  }
}

const SCORES = {
  classification: ["accuracy", "right"],
  multilabel: ["micro_f1", "F1 of labels"],
  ner: ["f1", "F1 of entities"],
};

function showLearnt({ report, file }, kind) {
  const [score, called] = SCORES[kind];
  const wrong = lesson.examples
    .map((example, n) => ({ example, said: heldOut[n] }))
    .filter(({ example, said }) => !lessons.agrees(kind, example, said));
  const lines = new Blob([`${lessons.linesOf(lesson)}\n`], { type: "application/jsonl" });
  const saved = (name, blob, text) => element("a", { class: "button", href: URL.createObjectURL(blob), download: name }, text);
  $("learnt").querySelectorAll("a[download]").forEach((link) => URL.revokeObjectURL(link.href));
  $("learnt").replaceChildren(
    element("p", { class: "score" }, percent(report.scores[score])),
    element("p", {}, `${called} on held-out examples, by cross-validation among ${report.examples}. Learnt in ${Math.round(report.milliseconds)} ms.`),
    element("h3", {}, "Wrong when held out"),
    wrong.length
      ? element("p", {}, `${wrong.length} of ${report.examples}. Look at them: is the label right? If not, take what was said, or another.`)
      : element("p", {}, "None."),
    element("ul", { id: "wrong" }, ...wrong.slice(0, MOST_WRONG).map(wrongLine)),
    wrong.length > MOST_WRONG ? element("p", { class: "soft" }, "The others are marked among the examples.") : "",
    element("div", { id: "curve" }),
    element("h3", {}, "Take it with you"),
    element(
      "div",
      { class: "row" },
      saved(`${report.task}.safetensors`, new Blob([file]), `Task file, ${Math.ceil(report.bytes / 1000)} kB`),
      saved(`${report.task}.jsonl`, lines, "Examples"),
    ),
    element("pre", {}, element("code", {}, `trunkline bundle add ${page.bundle()} ${report.task} ${report.task}.safetensors`)),
  );
}

function wrongLine({ example, said }) {
  const guess = lessons.inWords(lesson.kind, said);
  return element("li", {}, element("a", { href: `#example-${lesson.examples.indexOf(example)}` }, example.text), ` → ${guess}`);
}

/** The numbers of a part of the examples that has a share of each label's; `turn` says which. */
function partOf(labels, share, turn) {
  const groups = new Map();
  labels.forEach((label, n) => {
    const key = Array.isArray(label) ? (label[0]?.label ?? label[0] ?? "") : label;
    groups.set(key, [...(groups.get(key) ?? []), n]);
  });
  const taken = (own) => own.map((_, n) => own[(n + turn) % own.length]).slice(0, Math.ceil(share * own.length));
  return [...groups.values()].flatMap(taken).sort((a, b) => a - b);
}

/** The curve comes after the answer, each point from a part of every label's examples. */
async function showCurve(report, { family, texts, labels }, now) {
  const [score, called] = SCORES[family];
  const points = [];
  for (const share of SHARES) {
    const size = partOf(labels, share, 0).length;
    if (size === points.at(-1)?.count || size > 0.9 * texts.length) continue;
    const found = [];
    for (let turn = 0; turn < (texts.length <= FEW ? PARTS : 1); turn++) {
      const part = partOf(labels, share, turn);
      const scores = await page.ask("part", { family, texts: part.map((n) => texts[n]), labels: part.map((n) => labels[n]) });
      if (now !== change) return;
      if (scores) found.push(scores[score]);
    }
    if (found.length) points.push({ count: size, value: found.reduce((sum, value) => sum + value, 0) / found.length });
  }
  points.push({ count: texts.length, value: report.scores[score] });
  $("curve").replaceChildren(element("h3", {}, "Learning curve"), curve(points, called), element("small", {}, "Held-out score by the number of examples"));
}
