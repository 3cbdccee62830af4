/** Which examples are held out when. As in `trunkline.heads.fit`. */
import type { Gold, Learnable } from "./families.js";
import type { Matrix } from "./matrix.js";
import type { ReadText } from "./units.js";
import type { Border } from "./words.js";

/** Number of folds by the number of units times labels up to which it is taken. */
const FOLDS = [
  [20_000, 10],
  [500_000, 5],
  [Infinity, 3],
] as const;

/** An example with what an engine made of it. */
export interface Example {
  read: ReadText;
  borders: readonly Border[];
  gold: Gold;
  /** [units, width]. */
  features: Float32Array;
  targets: number[];
}

/** Folds of examples; "held-out units" are those of all folds, fold by fold. */
export interface Split {
  /** The fold that holds out each example. */
  fold: readonly number[];
  /** For each fold the examples that are trained on. */
  trained: readonly number[][];
  /** For each fold the weight of each labelled unit, 0 where it is held out. */
  masks: readonly Matrix[];
  /** All examples, fold by fold. */
  order: readonly number[];
  /** The label of each held-out unit, or yes or no for each of its labels, -1 for one that is not trained on: what was never seen cannot be asked for. */
  targets: readonly number[];
}

/** Stratified folds of all examples. */
export function crossValidate(family: Learnable, examples: readonly Example[], labels: number, seed: number): Split {
  const size = examples.reduce((sum, { targets }) => sum + targets.length, 0) * labels;
  const fold = stratifiedFolds(examples, family, FOLDS.find(([most]) => size <= most)![1], seed);
  const count = new Set(fold).size;
  const owner = family.several
    ? [...examples.keys()]
    : examples.flatMap(({ targets }, n) => targets.filter((target) => target >= 0).map(() => n));
  const everything = [...examples.keys()];
  const numbers = Array.from({ length: count }, (_, number) => number);
  const held = numbers.map((number) => everything.filter((n) => fold[n] === number));
  // Where all texts are one, there is nothing to train on but what is held out.
  const trained = numbers.map((number) => everything.filter((n) => fold[n] !== number || count === 1));
  const seen = trained.map((own) => new Set(own.flatMap((n) => examples[n]!.targets)));
  const varied = trained.map((own) =>
    examples[0]!.targets.map((_, label) => new Set(own.map((n) => examples[n]!.targets[label])).size > 1),
  );
  const known = (target: number, label: number, fold: number): boolean =>
    family.several ? varied[fold]![label]! : seen[fold]!.has(target);
  const order = held.flat();
  return {
    fold,
    trained,
    masks: numbers.map((number) => Float64Array.from(owner, (n) => +(fold[n] !== number || count === 1))),
    order,
    targets: order.flatMap((n) =>
      examples[n]!.targets.map((target, place) => (known(target, place, fold[n]!) ? target : -1)),
    ),
  };
}

/**
 * The fold of each example (iterative stratification, Sechidis et al. 2011): rare classes first, each to the fold that
 * has fewest of its rarest class. Texts that differ only in case and blanks get one fold.
 */
function stratifiedFolds(examples: readonly Example[], family: Learnable, count: number, seed: number): number[] {
  const groups = new Map<string, number[]>();
  examples.forEach(({ read }, n) => {
    const key = read.text.text.toLowerCase().split(/\s+/).filter(Boolean).join(" ");
    groups.set(key, [...(groups.get(key) ?? []), n]);
  });
  const members = [...groups.values()];
  const classes = examples.map(({ gold }) => [...family.classes(gold)]);
  const total = counted(classes.flat());
  const held = members.map((group) => counted(group.flatMap((n) => classes[n]!)));
  const rarest = held.map(
    (own) => [...own.keys()].sort((a, b) => total.get(a)! - total.get(b)! || (a < b ? -1 : 1))[0],
  );
  const size = (group: number): number => total.get(rarest[group] ?? "") ?? Infinity;
  const order = shuffled(members.length, seed).sort((a, b) => {
    const names = [rarest[a] ?? "", rarest[b] ?? ""] as const;
    const bySize = size(a) === size(b) ? 0 : size(a) - size(b);
    return (
      bySize || (names[0] === names[1] ? 0 : names[0] < names[1] ? -1 : 1) || members[b]!.length - members[a]!.length
    );
  });
  const folds = Array.from({ length: Math.max(1, Math.min(count, members.length)) }, () => ({
    seen: new Map<string, number>(),
    size: 0,
  }));
  const found = new Array<number>(examples.length).fill(0);
  for (const group of order) {
    const own = [...held[group]!.keys()];
    const costs = folds.map(({ seen, size: so_far }) => [
      seen.get(rarest[group] ?? "") ?? 0,
      own.reduce((sum, name) => sum + (seen.get(name) ?? 0), 0),
      so_far,
    ]);
    const least = costs.reduce((best, cost, n) => (compare(cost, costs[best]!) < 0 ? n : best), 0);
    const fold = folds[least]!;
    for (const [name, more] of held[group]!) fold.seen.set(name, (fold.seen.get(name) ?? 0) + more);
    fold.size += members[group]!.length;
    for (const n of members[group]!) found[n] = least;
  }
  return found;
}

function compare(one: readonly number[], other: readonly number[]): number {
  const place = one.findIndex((value, n) => value !== other[n]);
  return place < 0 ? 0 : one[place]! - other[place]!;
}

function counted(names: readonly string[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const name of names) found.set(name, (found.get(name) ?? 0) + 1);
  return found;
}

/** 0 to `count` - 1 in an order that a seed says (Fisher and Yates, with the generator mulberry32). */
function shuffled(count: number, seed: number): number[] {
  const found = Array.from({ length: count }, (_, n) => n);
  let state = seed >>> 0;
  for (let n = count - 1; n > 0; n--) {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    const other = Math.floor((((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32) * (n + 1));
    [found[n], found[other]] = [found[other]!, found[n]!];
  }
  return found;
}
