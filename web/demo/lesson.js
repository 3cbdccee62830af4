// A lesson: a task's name, kind and labels, and its examples, each with a label or with marked words.

export const PRESETS = {
  "customer mail": {
    name: "mail",
    kind: "classification",
    examples: {
      delivery: ["Where is my parcel?", "It has not arrived yet", "When will you ship it?", "The courier never came"],
      refund: ["I want my money back", "You charged me twice", "Please return the payment", "Cancel it and pay me back"],
      praise: ["Thank you, that was quick", "Great service, well done", "I love the new colour", "Perfect, exactly what I wanted"],
    },
  },
  "travel plans": {
    name: "travel",
    kind: "ner",
    examples: [
      "We fly to [city: Oslo] with [airline: Norwegian] on Monday",
      "Is [airline: Lufthansa] cheaper than the train to [city: Rome]?",
      "Meet me in [city: Lima], I will be tired",
      "Nothing to book this week",
      "[airline: Iberia] lost my bag in [city: Cairo] again",
      "From [city: Kyoto] to [city: New York] in one night",
      "The [airline: Air France] desk in [city: Paris] was closed",
      "Book two seats with [airline: KLM] please",
    ],
  },
  "restaurant reviews": {
    name: "reviews",
    kind: "multilabel",
    examples: [
      ["The soup was cold", "food"],
      ["Lovely pasta, and the waiter was so kind", "food", "service"],
      ["Far too expensive for what you get", "price"],
      ["We waited an hour for the bill", "service"],
      ["Cheap and delicious", "food", "price"],
      ["Nobody came to our table", "service"],
      ["The best cake in town", "food"],
      ["Twelve euros for a coffee", "price"],
      ["We went there on a Tuesday"],
      ["Friendly staff, fair prices", "service", "price"],
      ["Fresh fish, well cooked", "food"],
      ["It is next to the station"],
    ],
  },
  nothing: { name: "mine", kind: "classification", examples: [] },
};

/** An example: `label` is that of the kind `classification`, `labels` of `multilabel`, `spans` of `ner`. */
export function exampleOf(text, label = "", labels = [], spans = []) {
  return { text, label, labels, spans };
}

/** A lesson with the examples of a preset. */
export function lessonOf({ name, kind, examples }) {
  const lesson = { name, kind, labels: [], active: "", examples: [] };
  if (kind === "ner") lesson.examples = examples.map(readMarks);
  else if (kind === "multilabel") lesson.examples = examples.map(([text, ...labels]) => exampleOf(text, "", labels));
  else
    for (const [label, texts] of Object.entries(examples))
      for (const text of texts) lesson.examples.push(exampleOf(text, label));
  for (const example of lesson.examples) for (const label of labelsOf(kind, example)) addLabel(lesson, label);
  return lesson;
}

/** Makes a lesson one of another kind, and keeps what both kinds can say. */
export function changeKind(lesson, kind) {
  for (const example of lesson.examples) {
    if (kind === "multilabel" && example.label) example.labels = [example.label];
    if (kind === "classification") example.label = example.labels[0] ?? lesson.active;
  }
  lesson.kind = kind;
}

/** The labels that an example gives evidence of. */
function labelsOf(kind, { label, labels, spans }) {
  if (kind === "ner") return spans.map((span) => span.label);
  return kind === "multilabel" ? labels : [label];
}

/** What is true of an example, as `fit` takes it. */
function truthOf(kind, { label, labels, spans }) {
  return { ner: spans, multilabel: labels, classification: label }[kind];
}

/** Whether a prediction is what is true of an example. */
export function agrees(kind, example, said) {
  const written = (own) => JSON.stringify(own.map(({ start, end, label }) => [start, end, label]).sort());
  if (kind === "ner") return written(example.spans) === written(said);
  if (kind === "multilabel") return JSON.stringify(example.labels.toSorted()) === JSON.stringify(said.labels.toSorted());
  return said.label === example.label;
}

/** Takes a prediction for what is true of an example. */
export function takeOver(kind, example, said) {
  if (kind === "ner") example.spans = said.map(({ start, end, label }) => ({ start, end, label }));
  else if (kind === "multilabel") example.labels = [...said.labels];
  else example.label = said.label;
}

/** A prediction in a few words. */
export function inWords(kind, said) {
  if (kind === "ner") return said.map(({ text, label }) => `${text} (${label})`).join(", ") || "no words";
  return kind === "multilabel" ? said.labels.join(", ") || "no label" : said.label;
}

export function addLabel(lesson, label) {
  if (!lesson.labels.includes(label)) lesson.labels.push(label);
  lesson.active ||= label;
}

/** Takes a label and all that has it away. */
export function removeLabel(lesson, label) {
  lesson.labels = lesson.labels.filter((one) => one !== label);
  if (lesson.active === label) lesson.active = lesson.labels[0] ?? "";
  if (lesson.kind === "classification") lesson.examples = lesson.examples.filter((example) => example.label !== label);
  for (const example of lesson.examples) {
    example.labels = example.labels.filter((one) => one !== label);
    example.spans = example.spans.filter((span) => span.label !== label);
  }
}

/** What `fit` takes. */
export function goldOf({ kind, examples }) {
  return { family: kind, texts: examples.map(({ text }) => text), labels: examples.map((one) => truthOf(kind, one)) };
}

/** What is missing before anything can be learnt; empty where nothing is. */
export function missing({ kind, examples }) {
  const counts = new Map();
  for (const example of examples) {
    for (const label of new Set(labelsOf(kind, example))) counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  const enough = [...counts.values()].filter((count) => count > 1).length;
  if (kind === "classification") return enough < 2 ? "Give two labels or more two examples each." : "";
  if (enough < 1) return kind === "ner" ? "Mark words of one label in two examples or more." : "Give one label two examples or more.";
  const all = [...counts.values()].every((count) => count === examples.length);
  return kind === "multilabel" && all ? "Add examples without a label." : "";
}

/** The examples as lines of JSON, which `trunkline fit --train` reads. */
export function linesOf({ kind, examples }) {
  const line = (example) => {
    const truth = truthOf(kind, example);
    if (kind === "ner") return { text: example.text, entities: truth.map((span) => inCodePoints(example.text, span)) };
    return kind === "multilabel" ? { text: example.text, labels: truth } : { text: example.text, label: truth };
  };
  return examples.map((example) => JSON.stringify(line(example))).join("\n");
}

/** A span as Python counts. */
function inCodePoints(text, { start, end, label }) {
  const place = (units) => Array.from(text.slice(0, units)).length;
  return { start: place(start), end: place(end), label };
}

/** The words of a text, each with what stands between it and the next. */
export function wordsOf(text) {
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), ({ segment, index, isWordLike }) => ({
    text: segment,
    start: index,
    end: index + segment.length,
    word: isWordLike,
  }));
}

/** Marks a word with a label, or takes its mark away; marked neighbours of one label are one entity. */
export function toggle(example, word, label) {
  const marks = wordsOf(example.text)
    .filter((one) => one.word)
    .map((one) => ({ ...one, label: example.spans.find((span) => span.start < one.end && one.start < span.end)?.label }));
  const chosen = marks.find(({ start }) => start === word.start);
  chosen.label = chosen.label === label ? undefined : label;
  const spans = [];
  let before;
  for (const mark of marks) {
    if (mark.label && before?.label === mark.label && JOINING.test(example.text.slice(before.end, mark.start))) spans.at(-1).end = mark.end;
    else if (mark.label) spans.push({ start: mark.start, end: mark.end, label: mark.label });
    before = mark;
  }
  example.spans = spans;
}

/** What may stand inside an entity between two words. */
const JOINING = /^[\s.'’&/:@_-]*$/;
const MARK = /\[([^\][:]+): ?([^\]]+)\]/g;

function readMarks(line) {
  const spans = [];
  let text = "";
  let end = 0;
  for (const match of line.matchAll(MARK)) {
    text += line.slice(end, match.index);
    spans.push({ start: text.length, end: text.length + match[2].length, label: match[1] });
    text += match[2];
    end = match.index + match[0].length;
  }
  return exampleOf(text + line.slice(end), "", [], spans);
}
