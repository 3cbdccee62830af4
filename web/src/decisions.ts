/** What is said, by scores: the best labels, none of them, or sets that hold the right one. As in `trunkline.heads.decisions`. */
import { TrunklineError, short } from "./errors.js";
import type { Classified, Entity, Prediction, Several } from "./families.js";
import type { Task } from "./task.js";

/** What may be asked of predictions. */
export interface Asked {
  /** Show the probabilities of this many labels, the best ones. */
  topK?: number;
  /** Say nothing that scores lower, in all tasks or by task; it stands instead of what a task's file says. */
  minScore?: number | Readonly<Record<string, number>>;
  /** Give a `set` of labels with each text, which holds the right one in this share of texts. */
  coverage?: number;
}

type Decide = (prediction: Prediction) => Prediction;

/** What is made of each task's predictions, with what their files say and what is asked for. */
export function deciders(tasks: readonly Task[], { topK, minScore, coverage }: Asked): Map<string, Decide> {
  const names = tasks.map(({ name }) => name);
  const by = typeof minScore === "object" ? minScore : Object.fromEntries(names.map((name) => [name, minScore]));
  for (const [name, least] of Object.entries(by)) {
    if (!names.includes(name)) throw new TrunklineError(`minScore for task ${name}`, `some of ${names.join(", ")}`);
    checkShare(`minScore of task ${name}`, least);
  }
  checkShare("coverage", coverage);
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1))
    throw new TrunklineError(`topK ${short(topK)}`, "a whole number from 1");
  const families = new Set(tasks.map(({ family }) => family));
  if (coverage !== undefined && !families.has("classification"))
    throw new TrunklineError(`coverage for ${names.join(", ")}`, "a task of classification");
  if (topK !== undefined && !families.has("classification") && !families.has("multilabel"))
    throw new TrunklineError(`topK for ${names.join(", ")}`, "a task whose texts have labels");
  const asked = (name: string): number | undefined => (Object.hasOwn(by, name) ? by[name] : undefined);
  return new Map(tasks.map((task) => [task.name, ofTask(task, topK, asked(task.name), coverage)]));
}

function ofTask(task: Task, topK?: number, asked?: number, coverage?: number): Decide {
  const { family, decisions } = task;
  const least = asked ?? decisions.min_score ?? 0;
  const { other } = decisions;
  if (family === "ner") return (found) => (found as Entity[]).filter(({ score }) => score >= least);
  if (family === "multilabel") return (found) => several(found as Several, topK, least, asked);
  if (family !== "classification") return (found) => found;
  const level = coverage === undefined ? undefined : leastChance(task, coverage);
  return (found) => {
    const { label, score, probabilities } = found as Classified;
    const rows = ranked(probabilities);
    const result: Classified = {
      label: score >= least && label !== other ? label : null,
      score,
      probabilities: Object.fromEntries(rows.slice(0, topK)),
    };
    if (level === undefined) return result;
    return { ...result, set: rows.filter(([name, chance]) => chance >= level && name !== other).map(([name]) => name) };
  };
}

/** Of a text with several labels; a least score that is asked for stands instead of the labels' thresholds. */
function several({ labels, probabilities }: Several, topK?: number, least = 0, asked?: number): Several {
  const rows = ranked(probabilities);
  const said = asked === undefined ? labels : rows.map(([label]) => label);
  return {
    labels: said.filter((label) => probabilities[label]! >= least),
    probabilities: Object.fromEntries(rows.slice(0, topK)),
  };
}

/** Labels with the most probable first; objects have labels that are whole numbers first. */
function ranked(probabilities: Record<string, number>): [string, number][] {
  return Object.entries(probabilities).sort(([, one], [, other]) => other - one);
}

/**
 * The probability from which labels are in a set that holds the right one for this share of new texts: split conformal
 * prediction on the probabilities of right labels when their texts were held out.
 */
function leastChance({ name, decisions }: Task, coverage: number): number {
  const held = Object.entries(decisions.held_out ?? {});
  if (!held.length) {
    throw new TrunklineError(`task ${name} keeps no scores of held-out texts`, "", "Fit the task again with this version");
  }
  const own = held.filter(([label]) => label !== decisions.other);
  const chances = own.flatMap(([, { true: of = [] }]) => of).sort((a, b) => a - b);
  const rank = Math.round((1 - coverage) * (chances.length + 1) * 1e9) / 1e9;
  if (rank < 1) {
    const most = Math.floor((1000 * chances.length) / (chances.length + 1)) / 1000;
    const needed = coverage < 1 ? `${Math.ceil(1 / (1 - coverage) - 1e-9) - 1} labelled texts` : "no sets at all";
    const given = `coverage ${coverage} with ${chances.length} held-out texts of task ${name}`;
    throw new TrunklineError(given, `at most ${most}, or ${needed}`);
  }
  const below = Math.min(Math.floor(rank), chances.length);
  const next = chances[Math.min(below, chances.length - 1)]!;
  return chances[below - 1]! + (rank - Math.floor(rank)) * (next - chances[below - 1]!);
}

function checkShare(what: string, value: unknown): void {
  if (value === undefined || (typeof value === "number" && value >= 0 && value <= 1)) return;
  throw new TrunklineError(`${what} is ${short(value)}`, "a number from 0 to 1");
}
