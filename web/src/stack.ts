/** What the logits of heads are multiplied by before they are added: calibration and stacking in one. */
import { type Matrix, dot, solve } from "./matrix.js";

/** Of the prior: the square of a factor's distance from an even share is worth half of this in nats, for each head. */
const STRENGTH = 1;
/** Logits below are of labels that no unit has that was trained on. */
const BARRED = -1e6;
/** Of an even share, the least that a head counts. */
const LEAST = 0.25;

/**
 * The factors of least held-out log loss, with a normal prior around an even share. As in `trunkline.heads.linear`.
 *
 * `members` are, for each head, logits [units, labels]; `targets` may be empty, and then the prior is all.
 */
export function factors(members: readonly Matrix[], targets: readonly number[], labels: number): number[] {
  const spreads = members.map((logits) => Math.max(spreadOf(logits, labels), 1e-6));
  const even = 1 / members.length;
  let found = members.map(() => even);
  if (targets.length) {
    const scaled = members.map((logits, n) => logits.map((value) => value / spreads[n]!));
    let state = objective(scaled, targets, found, labels);
    for (let round = 0; round < 50; round++) {
      const free = found.map((value, n) => value > LEAST * even || state.gradient[n]! < 0);
      const chosen = [...free.keys()].filter((n) => free[n]);
      const curvature = Float64Array.from(
        chosen.flatMap((a) => chosen.map((b) => state.curvature[a * found.length + b]!)),
      );
      const solved = solve(
        curvature,
        Float64Array.from(chosen, (n) => -state.gradient[n]!),
        chosen.length,
      );
      let step = found.map((_, n) => (free[n] ? solved[chosen.indexOf(n)]! : 0));
      let next: number[];
      let tried: typeof state;
      // Newton, held back where it would go too far.
      for (;;) {
        next = found.map((value, n) => Math.max(value + step[n]!, LEAST * even));
        tried = objective(scaled, targets, next, labels);
        if (tried.loss <= state.loss || Math.max(...step.map(Math.abs)) < 1e-6) break;
        step = step.map((value) => value / 2);
      }
      const done = tried.loss > state.loss - 1e-9 * Math.abs(state.loss);
      if (tried.loss < state.loss) [found, state] = [next, tried];
      if (done) break;
    }
  }
  return found.map((factor, n) => factor / spreads[n]!);
}

/** The sum of matrices times their factors. */
export function weighted(factors: readonly number[], parts: readonly ArrayLike<number>[]): Matrix {
  return Float64Array.from({ length: parts[0]!.length }, (_, n) =>
    factors.reduce((sum, factor, part) => sum + factor * parts[part]![n]!, 0),
  );
}

/** Mean log loss in nats of logits [units, labels]. */
export function logLoss(logits: Matrix, targets: readonly number[], labels: number): number {
  return logLosses(logits, targets, labels).reduce((sum, value) => sum + value, 0) / targets.length;
}

export function logLosses(logits: Matrix, targets: readonly number[], labels: number): number[] {
  return targets.map((target, unit) => {
    const row = logits.subarray(unit * labels, (unit + 1) * labels);
    const top = Math.max(...row);
    return Math.log(row.reduce((sum, value) => sum + Math.exp(value - top), 0)) + top - row[target]!;
  });
}

/** Standard deviation of logits around the mean of their unit, labels that cannot win left out. */
function spreadOf(logits: Matrix, labels: number): number {
  let [square, count] = [0, 0];
  for (let begin = 0; begin < logits.length; begin += labels) {
    const there = logits.subarray(begin, begin + labels).filter((value) => value > BARRED);
    const mean = there.reduce((sum, value) => sum + value, 0) / Math.max(there.length, 1);
    square += there.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    count += there.length;
  }
  return Math.sqrt(square / Math.max(count, 1));
}

/** Log loss and prior in nats, their gradient and curvature by the factors. */
function objective(scaled: readonly Matrix[], targets: readonly number[], found: readonly number[], labels: number) {
  const size = found.length;
  const state = { loss: 0, gradient: new Float64Array(size), curvature: new Float64Array(size * size) };
  const logits = weighted(found, scaled);
  targets.forEach((target, unit) => {
    const row = logits.subarray(unit * labels, (unit + 1) * labels);
    const top = Math.max(...row);
    const sum = row.reduce((total, value) => total + Math.exp(value - top), 0);
    const chances = row.map((value) => Math.exp(value - top) / sum);
    state.loss += Math.log(sum) + top - row[target]!;
    const own = scaled.map((member) => member.subarray(unit * labels, (unit + 1) * labels));
    const means = own.map((member) => dot(member, chances));
    for (let a = 0; a < size; a++) {
      state.gradient[a]! += means[a]! - own[a]![target]!;
      for (let b = 0; b < size; b++) {
        for (let k = 0; k < labels; k++) {
          // Labels that cannot win have no chance, and their square would not fit.
          if (chances[k]! > 0)
            state.curvature[a * size + b]! += chances[k]! * (own[a]![k]! - means[a]!) * (own[b]![k]! - means[b]!);
        }
      }
    }
  });
  const strength = STRENGTH * size;
  found.forEach((value, n) => {
    const distance = value - 1 / size;
    state.loss += (strength / 2) * distance ** 2;
    state.gradient[n]! += strength * distance;
    state.curvature[n * size + n]! += strength;
  });
  return state;
}
