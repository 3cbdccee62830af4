/** Named entity recognition: words or pieces are units, entities are spans of them, decoded from BIO tags. */
import { byCodePoint } from "./classification.js";
import { TrunklineError, short } from "./errors.js";
import { type Entity, type Gold, type Learnable, type Scored, type Span, rounded, softmax } from "./families.js";
import { type ReadText, bordersOf, firstIndex, wordUnits } from "./units.js";
import { type Border, unitShapes } from "./words.js";

/** Tags that the prior of a tag's transitions is worth. */
const STRENGTH = 5;
/** Share of entities inside words up to which units are words all the same. */
const RARE = 0.1;

export const ner: Learnable = {
  mainScore: "f1",
  several: false,
  ownWindows: false,

  checkLabels(labels, where) {
    const wrong = labels.find((label) => label !== "O" && !(/^[BI]-/.test(label) && label.length > 2));
    if (labels.length && wrong === undefined) return;
    throw new TrunklineError(`${where} has the label ${short(wrong ?? null)}`, "O, or B- or I- and a type");
  },

  units: wordUnits,
  probabilities: softmax,
  shapes: (read, borders) => unitShapes(read.text, borders),
  decode: entities,

  labels(gold) {
    const types = [...new Set(gold.flatMap((own) => spansOf(own).map((span) => span.label)))].sort(byCodePoint);
    return ["O", ...types.flatMap((type) => [`B-${type}`, `I-${type}`])];
  },

  chooseUnits(read, gold) {
    let gained = 0;
    let all = 0;
    read.forEach((text, n) => {
      const spans = spansOf(gold[n]!);
      all += spans.length;
      const missed = unheld(text, spans, text.text.words);
      if (missed) gained += missed - unheld(text, spans, bordersOf(text, "pieces"));
    });
    return gained > RARE * all ? "pieces" : "words";
  },

  classes: (gold) => new Set(spansOf(gold).map((span) => span.label)),

  targets(read, gold, labels, borders) {
    const found = new Array<number>(borders.length).fill(labels.indexOf("O"));
    for (const [first, last, label] of wordSpans(read, spansOf(gold), borders)) {
      found.fill(labels.indexOf(`I-${label}`), first, last);
      found[first] = labels.indexOf(`B-${label}`);
    }
    return found;
  },

  transitions: learntTransitions,

  covariance(labels) {
    const same = (a: string, b: string): number => +(a === b) + +(a.slice(2) === b.slice(2)) + +(a[0] === b[0]);
    return Float64Array.from(labels.flatMap((a) => labels.map((b) => same(a, b) / 3)));
  },

  score(gold, predicted) {
    const counts = new Map<string, [number, number, number]>();
    gold.forEach((truth, n) => {
      const [true_, guessed] = ner.compare(truth, predicted[n]!);
      const sets = [new Set([...true_].filter((one) => guessed.has(one))), guessed, true_];
      sets.forEach((set, column) => {
        for (const answer of set) {
          const type = JSON.parse(answer)[2] as string;
          if (!counts.has(type)) counts.set(type, [0, 0, 0]);
          counts.get(type)![column]!++;
        }
      });
    });
    const rows = [...counts.values()];
    const [right, guessed, all] = [0, 1, 2].map((n) => rows.reduce((sum, row) => sum + row[n]!, 0)) as [
      number,
      number,
      number,
    ];
    const f1 = rows.map((row) => (2 * row[0]) / (row[1] + row[2]));
    return {
      f1: (2 * right) / Math.max(guessed + all, 1),
      precision: right / Math.max(guessed, 1),
      recall: right / Math.max(all, 1),
      macro_f1: f1.reduce((sum, value) => sum + value, 0) / Math.max(f1.length, 1),
    };
  },

  compare(gold, prediction) {
    const sets = [spansOf(gold), prediction as Entity[]].map(
      (spans: readonly Span[]) => new Set(spans.map(({ start, end, label }) => JSON.stringify([start, end, label]))),
    );
    return sets as [Set<string>, Set<string>];
  },

  confidences: (prediction) =>
    (prediction as Entity[]).map(({ start, end, label, score }) => [JSON.stringify([start, end, label]), score]),
  likelihood: () => undefined,
};

function spansOf(gold: Gold): readonly Span[] {
  return gold as readonly Span[];
}

/** First unit, last unit (exclusive) and label of each entity that the units can hold. */
function wordSpans(read: ReadText, spans: readonly Span[], borders: readonly Border[]): [number, number, string][] {
  const { places } = read.text;
  const found: [number, number, string][] = [];
  let taken = 0;
  for (const { start, end, label } of [...spans].sort((a, b) => a.start - b.start || a.end - b.end)) {
    const first = firstIndex(borders.length, (unit) => places[borders[unit]![1]]! > start);
    const last = firstIndex(borders.length, (unit) => places[borders[unit]![0]]! >= end);
    if (taken > first || first >= last) continue;
    found.push([first, last, label]);
    taken = last;
  }
  return found;
}

/** How many entities no prediction can hit. */
function unheld(read: ReadText, spans: readonly Span[], borders: readonly Border[]): number {
  const { places } = read.text;
  const held = wordSpans(read, spans, borders).filter(([first, last, label]) =>
    spans.some(
      (span) =>
        span.label === label && span.start === places[borders[first]![0]] && span.end === places[borders[last - 1]![1]],
    ),
  );
  return spans.length - held.length;
}

/** [labels + 1, labels] whether a tag (column) may follow another (row; the last: the start of the text). */
function mayFollow(labels: readonly string[]): boolean[] {
  const rows = [...labels, null];
  return rows.flatMap((before) =>
    labels.map((tag) => !tag.startsWith("I-") || (before !== null && before.slice(2) === tag.slice(2))),
  );
}

/** Log P(tag | tag before) - log P(tag), smoothed towards what all types together say. */
function learntTransitions(targets: readonly number[][], labels: readonly string[]): Float32Array {
  const size = labels.length;
  const follows = mayFollow(labels);
  const counts = new Float64Array((size + 1) * size);
  for (const tags of targets) {
    tags.forEach((tag, n) => {
      const before = n ? tags[n - 1]! : size;
      if (tag >= 0 && before >= 0) counts[before * size + tag]!++;
    });
  }
  const columns = labels.map((_, tag) => sum([...labels, ""].map((_row, row) => counts[row * size + tag]!)));
  const total = sum(columns);
  const share = columns.map((count) => (count + 1) / (total + size));
  const seen = [...labels, ""].map((_, row) => sum([...counts.subarray(row * size, (row + 1) * size)]));
  const kinds = [...labels, ""].flatMap((a) =>
    labels.map((b) => `${a.slice(0, 1)}${b[0]} ${a.slice(2) === b.slice(2)}`),
  );
  const found = new Map<string, number>();
  const expected = new Map<string, number>();
  kinds.forEach((kind, n) => {
    found.set(kind, (found.get(kind) ?? 1) + counts[n]!);
    expected.set(kind, (expected.get(kind) ?? 1) + seen[Math.floor(n / size)]! * share[n % size]!);
  });
  const prior = kinds.map((kind, n) => (follows[n] ? (share[n % size]! * found.get(kind)!) / expected.get(kind)! : 0));
  const rows = seen.map((_, row) => sum(prior.slice(row * size, (row + 1) * size)));
  return Float32Array.from(kinds, (_, n) => {
    const row = Math.floor(n / size);
    const smoothed = (counts[n]! + (STRENGTH * prior[n]!) / rows[row]!) / (seen[row]! + STRENGTH);
    return follows[n] ? Math.log(Math.max(smoothed, 1e-12) / share[n % size]!) : 0;
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Entities by the best valid tag sequence; the score is the mean probability that its units are of its type. */
function entities(scored: Scored): Entity[] {
  const { probabilities, read, borders, labels } = scored;
  const path = bestPath(scored);
  const found: Entity[] = [];
  path.forEach((tag, first) => {
    if (!labels[tag]!.startsWith("B-")) return;
    let last = first + 1;
    while (last < path.length && labels[path[last]!]!.startsWith("I-")) last++;
    const label = labels[tag]!.slice(2);
    let total = 0;
    for (let unit = first; unit < last; unit++) {
      labels.forEach((other, n) => {
        if (other.slice(2) === label) total += probabilities[unit * labels.length + n]!;
      });
    }
    const [begin, end] = [borders[first]![0], borders[last - 1]![1]];
    found.push({
      start: read.text.places[begin]!,
      end: read.text.places[end]!,
      text: read.text.slice(begin, end),
      label,
      score: rounded(total / (last - first)),
    });
  });
  return found;
}

/** The tags with the highest sum of log probabilities and transitions (Viterbi); of equal ones the lower tag. */
function bestPath({ probabilities, borders, labels, transitions }: Scored): number[] {
  const [units, size] = [borders.length, labels.length];
  const rules = mayFollow(labels).map((may, n) => (may ? (transitions?.[n] ?? 0) : -Infinity));
  const best = Float64Array.from(probabilities, (value) => Math.fround(Math.log(Math.max(value, Math.fround(1e-12)))));
  for (let tag = 0; units && tag < size; tag++) best[tag]! += rules[size * size + tag]!;
  for (let unit = 1; unit < units; unit++) {
    for (let tag = 0; tag < size; tag++) {
      let top = -Infinity;
      for (let before = 0; before < size; before++) {
        top = Math.max(top, best[(unit - 1) * size + before]! + rules[before * size + tag]!);
      }
      best[unit * size + tag]! += top;
    }
  }
  const path = new Array<number>(units).fill(0);
  for (let unit = units - 1; unit >= 0; unit--) {
    let top = -Infinity;
    for (let tag = 0; tag < size; tag++) {
      const rule = unit + 1 < units ? rules[tag * size + path[unit + 1]!]! : 0;
      const value = best[unit * size + tag]! + rule;
      if (value > top) [top, path[unit]] = [value, tag];
    }
  }
  return path;
}
