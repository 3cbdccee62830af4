/** Linear heads over frozen features: softmax regression and linear discriminant. As in `trunkline.heads.linear`. */
import { type Matrix, dot, eigen, product, solve, transposed } from "./matrix.js";
import type { Head } from "./task.js";

/** Largest entry of the preconditioned mean gradient at which a fit ends. */
export const TOLERANCE = 1e-3;
/** Bias of a label without a unit. */
const ABSENT = -1e8;
/** Of the discriminant's covariance towards a multiple of the identity. */
const SHRINKAGE = 0.5;
/** Least variance within labels that the discriminant believes. */
const NARROWEST = 0.01;
/** Slopes of a unit below are left out of gradients, which need not be finer than `TOLERANCE`. */
const NEGLIGIBLE = 1e-6;
/** Units that the mean variance of all features is worth beside a feature's own, which few units hardly tell. */
const FEW_UNITS = 100;
/** Steps that L-BFGS remembers, and takes at most. */
const [MEMORY, MOST] = [10, 300];

/** A head in the coordinates of `Units`: `weight` [labels, axes] and `bias` [labels]. */
export interface Solution {
  weight: Matrix;
  bias: Matrix;
}

/** Labelled units, features divided by spreads, along their principal axes, no more than tell the units apart. */
export class Units {
  readonly axes: number;
  readonly variances: number[];
  /** [units, axes]. */
  readonly x: Matrix;
  private readonly mean: Matrix;
  /** [axes, width], which takes weights back to raw features. */
  private readonly back: Matrix;

  /** Of [units, width] features and the label of each unit, none of them -1. */
  constructor(
    features: Float32Array,
    readonly y: number[],
    readonly labels: number,
    readonly width: number,
  ) {
    const count = y.length;
    this.mean = new Float64Array(width);
    for (let n = 0; n < features.length; n++) this.mean[n % width]! += features[n]! / count;
    const x = Float64Array.from(features, (value, n) => value - this.mean[n % width]!);
    const spread = new Float64Array(width);
    x.forEach((value, n) => (spread[n % width]! += (value * value) / count));
    const mean = spread.reduce((sum, value) => sum + value / width, 0);
    const share = count / (count + FEW_UNITS);
    spread.forEach((value, n) => (spread[n] = Math.sqrt(share * value + (1 - share) * mean) + 1e-6));
    x.forEach((value, n) => (x[n] = value / spread[n % width]!));
    const few = count <= width;
    const turned = transposed(x, count, width);
    const size = few ? count : width;
    const gram = few ? product(x, turned, count, width, count) : product(turned, x, width, count, width);
    const { values, vectors } = eigen(
      gram.map((value) => value / count),
      size,
    );
    const first = values.findIndex((value) => value > 1e-7 * Math.max(values.at(-1)!, 1e-7));
    const kept = first < 0 ? size : first;
    this.variances = values.slice(kept);
    this.axes = size - kept;
    let axes = vectors.slice(kept * size);
    if (few) {
      axes = product(axes, x, this.axes, count, width);
      axes.forEach((value, n) => (axes[n] = value / Math.sqrt(this.variances[Math.floor(n / width)]! * count)));
    }
    this.x = product(x, transposed(axes, this.axes, width), count, width, this.axes);
    this.back = axes.map((value, n) => value / spread[n % width]!);
  }

  /** The same units with other labels. */
  withTargets(y: readonly number[], labels: number): Units {
    return Object.assign(Object.create(Units.prototype) as Units, this, { y, labels });
  }

  /** A head for raw features. */
  head({ weight, bias }: Solution): Head {
    const raw = product(weight, this.back, this.labels, this.axes, this.width);
    const shift = product(raw, this.mean, this.labels, this.width, 1);
    return {
      weight: Float32Array.from(transposed(raw, this.labels, this.width)),
      bias: Float32Array.from(bias, (value, n) => Math.max(value - shift[n]!, ABSENT)),
      transitions: null,
    };
  }

  /** Share of each label, by the units' weights. */
  shares(weights: Matrix): Matrix {
    const found = new Float64Array(this.labels);
    let total = 0;
    this.y.forEach((label, n) => {
      found[label]! += weights[n]!;
      total += weights[n]!;
    });
    return found.map((value) => value / total);
  }
}

/**
 * Multinomial logistic regression with L2 penalty by L-BFGS, in coordinates of about equal curvature.
 *
 * What is minimised is scikit-learn's loss, two classes included; `penalty` is its C. `covariance` [labels, labels] is
 * that of the weights of labels, of which the penalty is the Gaussian prior.
 */
export function regression(
  units: Units,
  weights: Matrix,
  penalty: number,
  covariance: Float64Array | null,
  start?: Solution,
  tolerance = TOLERANCE,
): Solution {
  const { labels, axes } = units;
  const shares = units.shares(weights);
  const present = shares.filter((share) => share > 0).length;
  const total = weights.reduce((sum, value) => sum + value, 0);
  const strength = (present === 2 ? 2 : 1) / (penalty * total);
  const spread = shares.reduce((sum, share) => sum + share * (1 - share), 0);
  const curvature = Math.max(spread / Math.max(present, 1), 1e-6);
  const scale = Float64Array.from(
    [...units.variances.map((variance) => curvature * variance + strength), curvature],
    (value) => 1 / Math.sqrt(value),
  );
  const [root, inverse] = roots(covariance, labels);
  const own = labels * axes;

  const unpack = (flat: Matrix): { own: Matrix; solution: Solution } => {
    const part = Float64Array.from({ length: own }, (_, n) => flat[n]! * scale[n % axes]!);
    const bias = Float64Array.from({ length: labels }, (_, n) => flat[own + n]! * scale[axes]!);
    return { own: part, solution: { weight: product(root, part, labels, labels, axes), bias } };
  };
  const loss = (flat: Matrix): { value: number; gradient: Matrix } => {
    const { own: part, solution } = unpack(flat);
    const found = meanLoss(units, weights, total, solution);
    const gradient = new Float64Array(flat.length);
    product(root, found.weight, labels, labels, axes).forEach((value, n) => {
      gradient[n] = (value + strength * part[n]!) * scale[n % axes]!;
    });
    found.bias.forEach((value, n) => (gradient[own + n] = value * scale[axes]!));
    return { value: found.value + (strength / 2) * dot(part, part), gradient };
  };

  const first = new Float64Array(own + labels);
  if (start)
    product(inverse, start.weight, labels, labels, axes).forEach((value, n) => (first[n] = value / scale[n % axes]!));
  for (let n = 0; n < labels; n++) {
    // A start from other units may lack a label that is here.
    const known = start !== undefined && start.bias[n]! > ABSENT / 2;
    const bias = shares[n]! > 0 ? (known ? start.bias[n]! : Math.log(shares[n]!)) : ABSENT;
    first[own + n] = bias / scale[axes]!;
  }
  return unpack(lbfgs(loss, first, tolerance)).solution;
}

/** The symmetric square root of a covariance and its inverse; the identity for none. */
function roots(covariance: Float64Array | null, size: number): [Matrix, Matrix] {
  const unit = Float64Array.from({ length: size * size }, (_, n) => +(n % (size + 1) === 0));
  if (!covariance) return [unit, unit];
  const { values, vectors } = eigen(covariance, size);
  const power = (exponent: number): Matrix => {
    const scaled = vectors.map((value, n) => value * values[Math.floor(n / size)]! ** exponent);
    return product(transposed(vectors, size, size), scaled, size, size, size);
  };
  return [power(0.5), power(-0.5)];
}

/** Mean cross-entropy and its gradients. */
function meanLoss({ x, y, labels, axes }: Units, weights: Matrix, total: number, { weight, bias }: Solution) {
  const found = { value: 0, weight: new Float64Array(labels * axes), bias: new Float64Array(labels) };
  const logits = new Float64Array(labels);
  for (let unit = 0; unit < y.length; unit++) {
    const label = y[unit]!;
    const count = weights[unit]! / total;
    if (count === 0) continue;
    let top = -Infinity;
    for (let k = 0; k < labels; k++) {
      logits[k] = bias[k]! + dotAt(weight, k * axes, x, unit * axes, axes);
      top = Math.max(top, logits[k]!);
    }
    let sum = 0;
    for (let k = 0; k < labels; k++) sum += Math.exp(logits[k]! - top);
    found.value += count * (Math.log(sum) + top - logits[label]!);
    for (let k = 0; k < labels; k++) {
      const wrong = Math.exp(logits[k]! - top) / sum - +(k === label);
      if (Math.abs(wrong) < NEGLIGIBLE) continue;
      const slope = count * wrong;
      found.bias[k]! += slope;
      for (let n = 0, to = k * axes, from = unit * axes; n < axes; n++, to++, from++)
        found.weight[to]! += slope * x[from]!;
    }
  }
  return found;
}

/** The product of two rows; four sums side by side are faster than one, as none waits for the one before. */
function dotAt(a: Matrix, first: number, b: Matrix, second: number, length: number): number {
  let s = 0;
  let t = 0;
  let u = 0;
  let v = 0;
  let n = 0;
  for (; n + 3 < length; n += 4) {
    s += a[first + n]! * b[second + n]!;
    t += a[first + n + 1]! * b[second + n + 1]!;
    u += a[first + n + 2]! * b[second + n + 2]!;
    v += a[first + n + 3]! * b[second + n + 3]!;
  }
  for (; n < length; n++) s += a[first + n]! * b[second + n]!;
  return s + t + u + v;
}

/** Nocedal and Wright, algorithm 7.4, with backtracking until the loss falls enough (Armijo). */
function lbfgs(loss: (flat: Matrix) => { value: number; gradient: Matrix }, z: Matrix, tolerance: number): Matrix {
  let state = loss(z);
  let history: { moved: Matrix; turned: Matrix; inverse: number }[] = [];
  for (let step = 0; step < MOST && state.gradient.some((value) => Math.abs(value) >= tolerance); step++) {
    const direction = state.gradient.map((value) => -value);
    const add = (other: Matrix, factor: number): void =>
      direction.forEach((value, n) => (direction[n] = value + factor * other[n]!));
    const factors = history.toReversed().map(({ moved, turned, inverse }) => {
      const factor = inverse * dot(moved, direction);
      add(turned, -factor);
      return factor;
    });
    const last = history.at(-1);
    if (last) {
      const factor = dot(last.moved, last.turned) / Math.max(dot(last.turned, last.turned), 1e-30);
      direction.forEach((value, n) => (direction[n] = value * factor));
    }
    history.forEach(({ moved, turned, inverse }, n) =>
      add(moved, factors[history.length - 1 - n]! - inverse * dot(turned, direction)),
    );
    let slope = dot(direction, state.gradient);
    if (slope >= 0) {
      direction.set(state.gradient.map((value) => -value));
      slope = dot(direction, state.gradient);
    }
    let length = 1;
    let next = z;
    let reached = state;
    for (let tries = 0; tries < 10; tries++) {
      next = z.map((value, n) => value + length * direction[n]!);
      reached = loss(next);
      if (reached.value <= state.value + 1e-4 * length * slope + 1e-7 * Math.abs(state.value)) break;
      length *= 0.4;
    }
    const moved = next.map((value, n) => value - z[n]!);
    const turned = reached.gradient.map((value, n) => value - state.gradient[n]!);
    const curve = dot(moved, turned);
    history = [...history.slice(1 - MEMORY), { moved, turned, inverse: curve > 1e-12 ? 1 / curve : 0 }];
    const gain = state.value - reached.value;
    [z, state] = [next, reached];
    if (gain < 1e-7 * Math.abs(state.value)) break;
  }
  return z;
}

/** Linear discriminant analysis with a shrunk covariance; labels count by their shares. */
export function discriminant(units: Units, weights: Matrix): Solution {
  const { x, y, labels, axes } = units;
  const shares = units.shares(weights);
  const total = weights.reduce((sum, value) => sum + value, 0);
  const means = new Float64Array(labels * axes);
  y.forEach((label, unit) => {
    const share = weights[unit]! / Math.max(shares[label]! * total, 1e-9);
    for (let n = 0; n < axes; n++) means[label * axes + n]! += share * x[unit * axes + n]!;
  });
  // Along principal axes the sum of all units' squares is known: what is held out, and the means, are taken off.
  const within = new Float64Array(axes * axes);
  units.variances.forEach((variance, n) => (within[n * (axes + 1)] = (variance * y.length) / total));
  const takeOff = (rows: Matrix, row: number, factor: number): void => {
    for (let one = 0, at = row * axes; one < axes; one++) {
      const scaled = factor * rows[at + one]!;
      for (let other = 0; other <= one; other++) within[one * axes + other]! -= scaled * rows[at + other]!;
    }
  };
  weights.forEach((weight, unit) => weight < 1 && takeOff(x, unit, (1 - weight) / total));
  shares.forEach((share, label) => takeOff(means, label, share));
  let trace = 0;
  for (let n = 0; n < axes; n++) trace += within[n * (axes + 1)]!;
  const level = Math.max((SHRINKAGE * trace) / units.width, NARROWEST);
  for (let row = 0; row < axes; row++) {
    for (let n = 0; n <= row; n++) {
      const value = (1 - SHRINKAGE) * within[row * axes + n]! + (row === n ? level : 0);
      within[row * axes + n] = within[n * axes + row] = value;
    }
  }
  const weight = solve(within, means, axes);
  const bias = Float64Array.from({ length: labels }, (_, k) => {
    if (!(shares[k]! > 0)) return ABSENT;
    const both = dot(weight.subarray(k * axes, (k + 1) * axes), means.subarray(k * axes, (k + 1) * axes));
    return Math.log(shares[k]!) - both / 2;
  });
  return { weight, bias };
}
