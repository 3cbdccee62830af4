/** Fitting a head that wastes no label: cross-validation, then a fit on all. As in `trunkline.heads.fit`. */
import { byCodePoint } from "./classification.js";
import { type Learnable, type Prediction, type Scores, rounded, softmax } from "./families.js";
import { type Example, type Split, crossValidate } from "./folds.js";
import { type Solution, TOLERANCE, Units, discriminant, regression } from "./linear.js";
import type { HeldOut } from "./manifest.js";
import type { Matrix } from "./matrix.js";
import { bestThresholds, choices, difference } from "./several.js";
import { factors, logLoss, logLosses, weighted } from "./stack.js";
import type { Head } from "./task.js";
import { halved } from "./tensors.js";

/** scikit-learn's C, from strong to weak; the one that others must beat is the fifth. */
const PENALTIES = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const FIRST = 4;
/** Standard errors by which held-out losses must fall for another penalty. */
const NOISE = 2;
const TRANSITION_WEIGHTS = [0, 0.5, 0.75, 1];
/** Of a label without a unit; float16 holds it. */
const LEAST_BIAS = -1e4;
/** Held-out units above which the factors are those of all. */
const MANY = 500;
/** Most held-out examples whose scores a task file keeps. */
const KEPT = 500;
/** Tolerance of the fits that are compared. */
const LOOSE = 4 * TOLERANCE;
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
  evidence: Record<string, HeldOut>;
  /** Of labels, where a text has any number of them. */
  thresholds?: Record<string, number>;
}

/** What a fit works on. */
interface Problem {
  family: Learnable;
  examples: readonly Example[];
  labels: readonly string[];
  width: number;
  /** One, or for families of several labels one for each label. */
  problems: readonly Units[];
  /** Outputs of a row of logits: labels, or no and yes. */
  size: number;
  split: Split;
}

/** A head fitted on all examples, and held-out logits [units, labels] of its like. */
interface Member {
  head: Head;
  logits: Matrix;
}

/** Weight of transitions or thresholds, and held-out predictions with their scores. */
interface Decided {
  weight: number;
  scores: Scores;
  predictions: Prediction[];
  thresholds?: Record<string, number>;
}

/** Fits a head on all examples; everything else about it is chosen by cross-validation among them. */
export function fitHead(
  family: Learnable,
  examples: readonly Example[],
  labels: readonly string[],
  width: number,
  seed: number,
): Fitted {
  const problems = problemsOf(family, examples, labels.length, width);
  const size = family.several ? 2 : labels.length;
  const split = crossValidate(family, examples, size, seed);
  const problem: Problem = { family, examples, labels, width, problems, size, split };
  const whole = new Float64Array(problems[0]!.y.length).fill(1);
  const { penalty, solutions } = chosenRegression(problem);
  const covariance = family.covariance(labels);
  const last = problems.map((units, n) => regression(units, whole, penalty, covariance, solutions[0]![n]));
  const others = split.masks.map((mask) => problems.map((units) => discriminant(units, mask)));
  const all = problems.map((units) => discriminant(units, whole));
  return finish(problem, penalty, [
    { head: headOf(problem, last), logits: heldOut(problem, solutions) },
    { head: headOf(problem, all), logits: heldOut(problem, others) },
  ]);
}

/** The penalty of least held-out log loss, and what was fitted with it in each fold. */
function chosenRegression(problem: Problem): { penalty: number; solutions: Solution[][] } {
  const { family, labels, problems, size, split } = problem;
  const covariance = family.covariance(labels);
  const judged = split.targets.filter((target) => target >= 0);
  const path = new Map<number, Solution[][]>();
  const losses = (penalty: number): number[] => {
    const distance = (other: number): number => Math.abs(Math.log(other / penalty));
    const near = [...path.keys()].sort((a, b) => distance(a) - distance(b))[0];
    const starts = near === undefined ? undefined : path.get(near);
    // Another fold would be a better start, but it was trained on what this one holds out, and fits end early.
    const found = split.masks.map((mask, fold) =>
      problems.map((units, n) => regression(units, mask, penalty, covariance, starts?.[fold]?.[n], LOOSE)),
    );
    path.set(penalty, found);
    if (!judged.length) return [];
    const logits = known(problem, heldOut(problem, found));
    const factor = factors([logits], judged, size)[0]!;
    const each = logLosses(weighted([factor], [logits]), judged, size);
    return family.several ? byText(each, split.targets, labels.length) : each;
  };
  const penalty = climb(losses);
  return { penalty, solutions: path.get(penalty)! };
}

/** Adds up heads with the factors and transitions that held-out logits ask for. */
function finish(problem: Problem, penalty: number, members: readonly Member[]): Fitted {
  const { family, examples, labels, size, split } = problem;
  const judged = split.targets.filter((target) => target >= 0);
  const logits = members.map((member) => member.logits);
  const heads = members.map((member) => member.head);
  const shown = judged.length
    ? logits.map((part) => known(problem, part))
    : heads.map((head) => joined(examples.map(({ features }) => rowsOf(problem, head, features))));
  const found = factors(shown, judged, size);
  const fresh = asOfNewTexts(problem, logits, found);
  const moves = family.several ? withThresholds(problem, fresh) : bestTransitions(problem, fresh);
  const targets = examples.map((example) => example.targets);
  const learnt = family.transitions(targets, labels);
  const weights = heads.map((head) => head.weight);
  const biases = heads.map((head) => head.bias);
  return {
    head: {
      weight: halved(weighted(found, weights)),
      bias: halved(weighted(found, biases).map((value) => Math.min(Math.max(value, LEAST_BIAS), -LEAST_BIAS))),
      transitions: learnt && moves.weight ? halved(learnt.map((value) => value * moves.weight)) : null,
    },
    penalty,
    temperature: rounded(1 / found[0]!),
    discriminant: rounded(found[1]!),
    logLoss: judged.length ? rounded(logLoss(known(problem, fresh), judged, size)) : null,
    scores: moves.scores,
    heldOut: moves.predictions,
    evidence: evidence(problem, moves.predictions),
    ...(moves.thresholds && { thresholds: moves.thresholds }),
  };
}

/** Sums of held-out logits; where units are few, each fold by the factors that the others ask for. */
function asOfNewTexts({ examples, size, split }: Problem, logits: readonly Matrix[], found: number[]): Matrix {
  const fold = split.order.flatMap((n) => examples[n]!.targets.map(() => split.fold[n]!));
  const folds = [...new Set(fold)];
  if (folds.length < 2 || fold.length > MANY) return weighted(found, logits);
  const rows = (part: Matrix, wanted: (unit: number) => boolean): Matrix =>
    part.filter((_, at) => wanted(Math.floor(at / size)));
  const sums = folds.map((number) => {
    const other = (unit: number): boolean => fold[unit] !== number && split.targets[unit]! >= 0;
    const targets = split.targets.filter((_, unit) => other(unit));
    const judged = logits.map((part) => rows(part, other));
    const own = targets.length ? factors(judged, targets, size) : found;
    return weighted(
      own,
      logits.map((part) => rows(part, (unit) => fold[unit] === number)),
    );
  });
  return joined(sums);
}

/** What a task file keeps of held-out predictions, fold by fold. */
function evidence({ family, examples, split }: Problem, predictions: readonly Prediction[]): Record<string, HeldOut> {
  const found = new Map<string, Required<HeldOut>>();
  const of = (label: string): Required<HeldOut> => {
    if (!found.has(label)) found.set(label, { right: [], wrong: [], true: [], count: 0 });
    return found.get(label)!;
  };
  const step = Math.ceil(split.order.length / KEPT);
  for (const n of split.order.filter((_, place) => place % step === 0)) {
    const [truth] = family.compare(examples[n]!.gold, predictions[n]!);
    for (const answer of truth) of((JSON.parse(answer) as string[]).at(-1)!).count++;
    for (const [answer, score] of family.confidences(predictions[n]!)) {
      of((JSON.parse(answer) as string[]).at(-1)!)[truth.has(answer) ? "right" : "wrong"].push(score);
    }
    const said = predictions[n]!;
    const chances: Record<string, number> = "probabilities" in said ? said.probabilities : {};
    for (const label of family.classes(examples[n]!.gold)) {
      if (Object.hasOwn(chances, label)) of(label).true.push(chances[label]!);
    }
  }
  return Object.fromEntries([...found].sort(([a], [b]) => byCodePoint(a, b)));
}

/** Logits, a row a target, of the held-out examples, fold by fold. */
function heldOut(problem: Problem, solutions: readonly Solution[][]): Matrix {
  const { examples, split } = problem;
  const heads = solutions.map((own) => headOf(problem, own));
  return joined(split.order.map((n) => rowsOf(problem, heads[split.fold[n]!]!, examples[n]!.features)));
}

function headOf({ family, problems }: Problem, solutions: readonly Solution[]): Head {
  return family.several ? difference(problems, solutions) : problems[0]!.head(solutions[0]!);
}

/** [units, labels] logits, or [units * labels, no and yes]. */
function rowsOf({ family, width }: Problem, head: Head, features: Float32Array): Matrix {
  const logits = logitsOf(head, features, width);
  return family.several ? choices(logits) : logits;
}

/** Sums over the labels of a text, which hang together, of the losses of known targets. */
function byText(losses: readonly number[], targets: readonly number[], labels: number): number[] {
  const found = new Array<number>(targets.length / labels).fill(0);
  let place = 0;
  targets.forEach((target, n) => {
    if (target >= 0) found[Math.floor(n / labels)]! += losses[place++]!;
  });
  return found;
}

/** The logits of units whose label was trained on. */
function known({ size, split }: Problem, logits: Matrix): Matrix {
  return logits.filter((_, n) => split.targets[Math.floor(n / size)]! >= 0);
}

/** The units of all examples, once, or for each label with a yes or no. */
function problemsOf(family: Learnable, examples: readonly Example[], labels: number, width: number): Units[] {
  if (!family.several) return [unitsOf(examples, labels, width)];
  const plain = examples.map((example) => ({ ...example, targets: [0] }));
  const units = unitsOf(plain, 2, width);
  return Array.from({ length: labels }, (_, label) => {
    const y = examples.map(({ targets }) => targets[label]!);
    return units.withTargets(y, 2);
  });
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

/** Thresholds by held-out probabilities; each fold is predicted with those that the other folds ask for. */
function withThresholds({ family, examples, labels, split }: Problem, logits: Matrix): Decided {
  const chances = softmax(Float32Array.from(logits), 2).filter((_, n) => n % 2 === 1);
  const targets = split.order.flatMap((n) => examples[n]!.targets);
  const fold = split.order.flatMap((n) => labels.map(() => split.fold[n]!));
  const several = new Set(fold).size > 1;
  const asked = (wanted: (at: number) => boolean): Record<string, number> => {
    const own = targets.filter((_, at) => wanted(at));
    const found = bestThresholds(
      chances.filter((_, at) => wanted(at)),
      own,
      labels.length,
    );
    return Object.fromEntries(labels.map((label, n) => [label, found[n]!]));
  };
  const others = [...new Set(fold)].map((number) => asked((at) => !several || fold[at] !== number));
  const predictions = new Array<Prediction>(examples.length);
  split.order.forEach((n, place) => {
    const { read, borders } = examples[n]!;
    const probabilities = chances.subarray(place * labels.length, (place + 1) * labels.length);
    const decisions = { thresholds: others[split.fold[n]!]! };
    predictions[n] = family.decode({ probabilities, read, borders, labels, transitions: null, decisions });
  });
  const scores = family.score(
    examples.map((example) => example.gold),
    predictions,
  );
  return { weight: 0, scores, predictions, thresholds: asked(() => true) };
}

/** The weight of transitions with the best held-out main score, the lower one of equals. */
function bestTransitions({ family, examples, labels, split }: Problem, logits: Matrix): Decided {
  const size = labels.length;
  const probabilities = softmax(Float32Array.from(logits), size);
  const learnt = split.trained.map((numbers) => {
    const targets = numbers.map((n) => examples[n]!.targets);
    return family.transitions(targets, labels);
  });
  let best: Decided | undefined;
  for (const weight of learnt.some(Boolean) ? TRANSITION_WEIGHTS : [0]) {
    const moves = learnt.map((part) => (part && weight ? part.map((value) => value * weight) : null));
    const predictions = new Array<Prediction>(examples.length);
    let place = 0;
    for (const n of split.order) {
      const { read, borders, targets } = examples[n]!;
      const own = probabilities.subarray(place, (place += targets.length * size));
      const transitions = moves[split.fold[n]!]!;
      predictions[n] = family.decode({ probabilities: own, read, borders, labels, transitions });
    }
    const gold = examples.map((example) => example.gold);
    const scores = family.score(gold, predictions);
    if (!best || scores[family.mainScore]! > best.scores[family.mainScore]!) best = { weight, scores, predictions };
  }
  return best!;
}
