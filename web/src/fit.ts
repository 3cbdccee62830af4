/** Fitting a head that wastes no label: settings by cross-validation, then a fit on all. As in `trunkline.heads.fit`. */
import { type Gold, type Learnable, type Prediction, type Scores, rounded, softmax } from "./families.js";
import { type Solution, TOLERANCE, Units, discriminant, regression } from "./linear.js";
import type { Matrix } from "./matrix.js";
import { factors, logLoss, logLosses, weighted } from "./stack.js";
import type { Head } from "./task.js";
import { halved } from "./tensors.js";
import type { ReadText } from "./units.js";
import type { Border } from "./words.js";

/** scikit-learn's C, from strong to weak; the one that others must beat is the fifth. */
const PENALTIES = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const FIRST = 4;
/** Standard errors by which held-out losses must fall for another penalty. */
const NOISE = 2;
const TRANSITION_WEIGHTS = [0, 0.5, 0.75, 1];
/** Of a label without a unit; float16 holds it. */
const LEAST_BIAS = -1e4;
/** Tolerance of the fits that are compared. */
const LOOSE = 4 * TOLERANCE;
/** Number of folds by the number of units times labels up to which it is taken. */
const FOLDS = [[20_000, 10], [500_000, 5], [Infinity, 3]] as const;

/** An example with what an engine made of it. */
export interface Example {
  read: ReadText;
  borders: readonly Border[];
  gold: Gold;
  /** [units, width]. */
  features: Float32Array;
  targets: number[];
}

/** A head, how its settings were chosen, and what it says of held-out folds. */
export interface Fitted {
  head: Head;
  penalty: number;
  temperature: number;
  discriminant: number;
  logLoss: number | null;
  scores: Scores;
  /** The held-out prediction for each example. */
  heldOut: Prediction[];
}

/** Fits a head on all examples; everything else about it is chosen by cross-validation among them. */
export function fitHead(family: Learnable, examples: readonly Example[], labels: readonly string[], width: number, seed: number): Fitted {
  const units = unitsOf(examples, labels.length, width);
  const owner = examples.flatMap(({ targets }, n) => targets.filter((target) => target >= 0).map(() => n));
  const size = examples.reduce((sum, { targets }) => sum + targets.length, 0) * labels.length;
  const fold = stratifiedFolds(examples, family, FOLDS.find(([most]) => size <= most)![1], seed);
  const numbers = [...new Set(fold)].sort((a, b) => a - b);
  // Where all texts are one, there is nothing to train on but what is held out.
  const masks = numbers.map((number) => Float64Array.from(owner, (n) => +(fold[n] !== number || numbers.length === 1)));
  const whole = new Float64Array(owner.length).fill(1);
  const order = numbers.flatMap((number) => [...examples.keys()].filter((n) => fold[n] === number));
  const y = order.flatMap((n) => {
    const seen = new Set(owner.flatMap((_, unit) => (masks[numbers.indexOf(fold[n]!)]![unit] ? [units.y[unit]!] : [])));
    return examples[n]!.targets.map((target) => (seen.has(target) ? target : -1));
  });
  const covariance = family.covariance(labels);
  const judged = y.filter((target) => target >= 0);
  const known = (logits: Matrix): Matrix => logits.filter((_, n) => y[Math.floor(n / labels.length)]! >= 0);

  const heldOut = (solutions: readonly Solution[]): Matrix => {
    const heads = solutions.map((solution) => units.head(solution));
    return joined(order.map((n) => logitsOf(heads[numbers.indexOf(fold[n]!)]!, examples[n]!.features, width)));
  };
  const path = new Map<number, Solution[]>();
  const losses = (penalty: number): number[] => {
    const near = [...path.keys()].sort((a, b) => Math.abs(Math.log(a / penalty)) - Math.abs(Math.log(b / penalty)))[0];
    const starts = near === undefined ? undefined : path.get(near);
    const found: Solution[] = [];
    // Folds have most of their units in common, so that each fit is a good start for the next.
    masks.forEach((mask, n) => found.push(regression(units, mask, penalty, covariance, starts?.[n] ?? found[n - 1], LOOSE)));
    path.set(penalty, found);
    if (!judged.length) return [];
    const x = known(heldOut(found));
    const factor = factors([x], judged, labels.length)[0]!;
    return logLosses(x.map((value) => value * factor), judged, labels.length);
  };

  const penalty = climb(losses);
  const compared = path.get(penalty)!;
  const last = regression(units, whole, penalty, covariance, compared[0]);
  const members = [
    { head: units.head(last), logits: heldOut(compared) },
    { head: units.head(discriminant(units, whole)), logits: heldOut(masks.map((mask) => discriminant(units, mask))) },
  ];
  const logits = members.map((member) => member.logits);
  const shown = judged.length
    ? logits.map(known)
    : members.map(({ head }) => joined(examples.map(({ features }) => logitsOf(head, features, width))));
  const found = factors(shown, judged, labels.length);
  const summed = weighted(found, logits);
  const moves = bestTransitions(family, examples, labels, { fold, numbers, order }, summed);
  const learnt = family.transitions(examples.map(({ targets }) => targets), labels);
  const head = {
    weight: halved(weighted(found, members.map((member) => member.head.weight))),
    bias: halved(weighted(found, members.map((member) => member.head.bias)).map((value) => Math.max(value, LEAST_BIAS))),
    transitions: learnt && moves.weight ? halved(learnt.map((value) => value * moves.weight)) : null,
  };
  return {
    head,
    penalty,
    temperature: rounded(1 / found[0]!),
    discriminant: rounded(found[1]!),
    logLoss: judged.length ? rounded(logLoss(weighted(found, shown), judged, labels.length)) : null,
    scores: moves.scores,
    heldOut: examples.map((_, n) => moves.predictions[order.indexOf(n)]!),
  };
}

function unitsOf(examples: readonly Example[], labels: number, width: number): Units {
  const y = examples.flatMap(({ targets }) => targets.filter((target) => target >= 0));
  const features = new Float32Array(y.length * width);
  let place = 0;
  for (const example of examples) {
    example.targets.forEach((target, unit) => {
      if (target >= 0) features.set(example.features.subarray(unit * width, (unit + 1) * width), width * place++);
    });
  }
  return new Units(features, y, labels, width);
}

function logitsOf({ weight, bias }: Head, features: Float32Array, width: number): Matrix {
  const labels = bias.length;
  const found = new Float64Array((features.length / width) * labels);
  for (let at = 0; at < found.length; at++) {
    const [unit, label] = [Math.floor(at / labels), at % labels];
    let sum = bias[label]!;
    for (let n = 0; n < width; n++) sum += features[unit * width + n]! * weight[n * labels + label]!;
    found[at] = sum;
  }
  return found;
}

function joined(parts: readonly Matrix[]): Matrix {
  const found = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    found.set(part, place);
    place += part.length;
  }
  return found;
}

/** From the first penalty to weaker ones, else to stronger ones, while losses fall by more than their noise. */
function climb(losses: (penalty: number) => number[]): number {
  const start = losses(PENALTIES[FIRST]!);
  for (const direction of [1, -1]) {
    let best = FIRST;
    for (let before = start; best + direction in PENALTIES; best += direction) {
      const after = losses(PENALTIES[best + direction]!);
      const gains = before.map((value, n) => value - after[n]!);
      const sum = gains.reduce((total, gain) => total + gain, 0);
      const noise = Math.sqrt(gains.reduce((total, gain) => total + (gain - sum / gains.length) ** 2, 0));
      if (!gains.length || sum <= NOISE * noise) break;
      before = after;
    }
    if (best !== FIRST) return PENALTIES[best]!;
  }
  return PENALTIES[FIRST]!;
}

interface Split {
  fold: readonly number[];
  numbers: readonly number[];
  order: readonly number[];
}

/** The weight of transitions with the best held-out main score, the lower one of equals. */
function bestTransitions(family: Learnable, examples: readonly Example[], labels: readonly string[], { fold, numbers, order }: Split, logits: Matrix) {
  const size = labels.length;
  const probabilities = softmax(Float32Array.from(logits), size);
  const learnt = numbers.map((number) => {
    const trained = examples.filter((_, n) => fold[n] !== number || numbers.length === 1);
    return family.transitions(trained.map(({ targets }) => targets), labels);
  });
  let best: { weight: number; scores: Scores; predictions: Prediction[] } | undefined;
  for (const weight of learnt.some(Boolean) ? TRANSITION_WEIGHTS : [0]) {
    const moves = learnt.map((part) => (part && weight ? part.map((value) => value * weight) : null));
    let place = 0;
    const predictions = order.map((n) => {
      const { read, borders, targets } = examples[n]!;
      const own = probabilities.subarray(place, (place += targets.length * size));
      return family.decode({ probabilities: own, read, borders, labels, transitions: moves[numbers.indexOf(fold[n]!)]! });
    });
    const scores = family.score(order.map((n) => examples[n]!.gold), predictions);
    if (!best || scores[family.mainScore]! > best.scores[family.mainScore]!) best = { weight, scores, predictions };
  }
  return best!;
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
  const rarest = held.map((own) => [...own.keys()].sort((a, b) => total.get(a)! - total.get(b)! || (a < b ? -1 : 1))[0]);
  const size = (group: number): number => total.get(rarest[group] ?? "") ?? Infinity;
  const order = shuffled(members.length, seed).sort((a, b) => {
    const names = [rarest[a] ?? "", rarest[b] ?? ""] as const;
    const bySize = size(a) === size(b) ? 0 : size(a) - size(b);
    return bySize || (names[0] === names[1] ? 0 : names[0] < names[1] ? -1 : 1) || members[b]!.length - members[a]!.length;
  });
  const folds = Array.from({ length: Math.max(1, Math.min(count, members.length)) }, () => ({ seen: new Map<string, number>(), size: 0 }));
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
