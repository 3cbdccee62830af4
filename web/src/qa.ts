/** Extractive question answering: the first line of a text is the question, the rest the context; no fitting here. */
import { TrunklineError, short } from "./errors.js";
import { type Answer, type Family, type Scored, rounded, softmax } from "./families.js";
import { type ReadText, type UnitText, cover, overlaps } from "./units.js";
import type { Border } from "./words.js";

/** Tokens of the context that neighbouring windows share. */
const OVERLAP = 32;
/** Most words of an answer. */
const LONGEST = 30;
const LINE_FEED = 10;
const LABELS = ["O", "start", "end", "single"];
const NO_ANSWER = "no answer";

export const qa: Family = {
  several: false,
  ownWindows: true,

  checkLabels(labels, where) {
    if (LABELS.every((label) => labels.includes(label))) return;
    throw new TrunklineError(`${where} has the labels ${labels.join(", ").slice(0, 60)}`, LABELS.join(", "));
  },

  units: questionUnits,
  probabilities: softmax,
  decode: answerOf,
};

/** Where the context begins, in code points. */
function contextStart(read: ReadText): number {
  const end = read.text.codes.indexOf(LINE_FEED);
  if (end >= 0) return end + 1;
  const todo = "Write `${question}\\n${context}`, or leave tasks of the family qa out";
  throw new TrunklineError(
    `the text ${short(read.text.text)} has one line`,
    "a question, a line feed and the context",
    todo,
  );
}

/** Windows of a context, each with the question before it; unit 0, no answer, is the mean of their opening tokens. */
function questionUnits(read: ReadText, borders: readonly Border[]): UnitText {
  const begin = contextStart(read);
  const words = borders.filter(([start]) => start >= begin);
  const told = [...read.starts.keys()].filter((n) => read.starts[n]! >= begin - 1 && read.ends[n]! > begin);
  const asked = [...read.starts.keys()].filter((n) => read.starts[n]! < begin - 1);
  const [question, context] = [asked, told].map((tokens) => tokens.map((n) => read.ids[read.place[n]!]!)) as [
    number[],
    number[],
  ];
  const room = Math.max(...read.sizes) - 2;
  if (question.length + context.length > room) question.length = Math.min(question.length, Math.floor(room / 2));
  const space = room - question.length;
  const head = [read.ids[0]!, ...question, read.ids.at(-1)!];
  const windows = cover(context, head, [], space, Math.min(OVERLAP, Math.floor(space / 2)));
  let end = 0;
  const firsts = windows.sizes.map((size) => (end += size) - size);
  const found: UnitText = { ...windows, token: firsts, unit: firsts.map(() => 0), count: 1 + words.length };
  const pairs = overlaps(
    told.map((n) => read.starts[n]!),
    told.map((n) => read.ends[n]!),
    words,
  );
  for (const [token, word] of pairs) {
    found.token.push(windows.place[token]!);
    found.unit.push(word + 1);
  }
  const held = new Set(found.unit);
  for (let unit = 1; unit < found.count; unit++) {
    if (held.has(unit)) continue;
    found.token.push(0);
    found.unit.push(unit);
  }
  return found;
}

/** The best span, and its share of the odds of all spans up to `LONGEST` words and of no answer. */
function answerOf({ probabilities, read, borders, labels }: Scored): Answer {
  const begin = contextStart(read);
  const words = borders.filter(([start]) => start >= begin);
  const odds = (unit: number, label: string): number => {
    const at = (name: string): number =>
      Math.log(Math.max(probabilities[unit * labels.length + labels.indexOf(name)]!, 1e-12));
    return at(label) - at("O");
  };
  const none = labels.includes(NO_ANSWER) ? odds(0, NO_ANSWER) : -Infinity;
  const ends = words.map((_, n) => odds(n + 1, "end"));
  const spans = words.flatMap((_, first) => {
    const start = odds(first + 1, "start");
    return words.slice(first, first + LONGEST).map((_word, more) => ({
      first,
      last: first + more,
      value: more ? start + ends[first + more]! : odds(first + 1, "single"),
    }));
  });
  const top = spans.reduce((one, other) => (other.value > one.value ? other : one), {
    first: 0,
    last: 0,
    value: -Infinity,
  });
  const best = Math.max(none, top.value);
  const nothing = { answer: "", start: null, end: null };
  if (!Number.isFinite(best)) return { ...nothing, score: 1 };
  const total = spans.reduce((sum, { value }) => sum + Math.exp(value - best), Math.exp(none - best));
  const score = rounded(1 / total);
  if (none === best) return { ...nothing, score };
  const [start, end] = [words[top.first]![0], words[top.last]![1]];
  const { places } = read.text;
  return {
    answer: read.text.slice(start, end),
    start: places[start]! - places[begin]!,
    end: places[end]! - places[begin]!,
    score,
  };
}
