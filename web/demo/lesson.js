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
  nothing: { name: "mine", kind: "classification", examples: [] },
};

/** A lesson with the examples of a preset. */
export function lessonOf({ name, kind, examples }) {
  const lesson = { name, kind, labels: [], active: "", examples: [] };
  for (const [label, texts] of Object.entries(Array.isArray(examples) ? {} : examples)) {
    for (const text of texts) lesson.examples.push({ text, label, spans: [] });
    addLabel(lesson, label);
  }
  for (const line of Array.isArray(examples) ? examples : []) {
    const example = readMarks(line);
    lesson.examples.push(example);
    for (const { label } of example.spans) addLabel(lesson, label);
  }
  return lesson;
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
  else for (const example of lesson.examples) example.spans = example.spans.filter((span) => span.label !== label);
}

/** What `fit` takes. */
export function goldOf(lesson) {
  const { kind, examples } = lesson;
  return {
    family: kind,
    texts: examples.map(({ text }) => text),
    labels: examples.map(({ label, spans }) => (kind === "ner" ? spans : label)),
  };
}

/** What is missing before anything can be learnt; empty where nothing is. */
export function missing({ kind, examples }) {
  const counts = new Map();
  for (const { label, spans } of examples) {
    for (const one of new Set(kind === "ner" ? spans.map((span) => span.label) : [label])) counts.set(one, (counts.get(one) ?? 0) + 1);
  }
  const enough = [...counts.values()].filter((count) => count > 1).length;
  if (kind === "ner") return enough < 1 ? "Mark words of one label in two examples or more." : "";
  return enough < 2 ? "Give two labels or more two examples each." : "";
}

/** The examples as lines of JSON, which `trunkline fit --train` reads. */
export function linesOf({ kind, examples }) {
  return examples
    .map(({ text, label, spans }) => JSON.stringify(kind === "ner" ? { text, entities: spans.map((span) => inCodePoints(text, span)) } : { text, label }))
    .join("\n");
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
  return { text: text + line.slice(end), label: "", spans };
}
