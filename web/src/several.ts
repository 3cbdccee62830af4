/** Heads of a yes or no for each label, and the thresholds of what is said. As in `trunkline.heads.several`. */
import type { Solution, Units } from "./linear.js";
import type { Matrix } from "./matrix.js";
import type { Head } from "./task.js";

/** True texts that the prior of a label's threshold is worth. */
const STRENGTH = 64;

/** The head of one output a label, from the solutions of each: the logit of yes less that of no. */
export function difference(problems: readonly Units[], solutions: readonly Solution[]): Head {
  const heads = solutions.map((solution, label) => problems[label]!.head(solution));
  const width = problems[0]!.width;
  const weight = new Float32Array(width * heads.length);
  const less = (values: Float32Array, at: number): number => values[2 * at + 1]! - values[2 * at]!;
  heads.forEach((head, label) => {
    for (let n = 0; n < width; n++) weight[n * heads.length + label] = less(head.weight, n);
  });
  return { weight, bias: Float32Array.from(heads, (head) => less(head.bias, 0)), transitions: null };
}

/** [texts, labels] logits of yes -> [texts * labels, 2] logits of no and of yes, as of a softmax. */
export function choices(logits: Matrix): Matrix {
  return Float64Array.from({ length: 2 * logits.length }, (_, n) => ((n % 2 ? 1 : -1) * logits[n >> 1]!) / 2);
}

/** Probabilities from which labels are said, by [texts, labels] held-out probabilities of yes and targets. */
export function bestThresholds(chances: Float32Array, targets: readonly number[], labels: number): number[] {
  const levels = [...new Set(chances)].sort((a, b) => a - b);
  const grid = [0, ...levels.slice(1).map((level, n) => (level + levels[n]!) / 2), 1];
  const atLeast = (wanted: (at: number) => boolean): number[] => {
    const own = [...chances].filter((_, at) => wanted(at)).sort((a, b) => a - b);
    let below = 0;
    return grid.map((threshold) => {
      while (below < own.length && own[below]! < threshold) below++;
      return own.length - below;
    });
  };
  const count = (wanted: (at: number) => boolean): number =>
    targets.reduce((sum, target, at) => sum + +(target > 0 && wanted(at)), 0);
  const all = count(() => true);
  const share = STRENGTH / Math.max(all, 1);
  const [rightOfAll, saidOfAll] = [atLeast((at) => targets[at]! > 0), atLeast(() => true)];
  return Array.from({ length: labels }, (_, label) => {
    const own = (at: number): boolean => at % labels === label;
    const [right, said, gold] = [atLeast((at) => own(at) && targets[at]! > 0), atLeast(own), count(own)];
    const f1 = grid.map((_, n) => {
      const both = said[n]! + gold + share * (saidOfAll[n]! + all);
      return (2 * (right[n]! + share * rightOfAll[n]!)) / Math.max(both, 1e-9);
    });
    const most = Math.max(...f1);
    const best = [...f1.keys()].filter((n) => f1[n]! >= most - 1e-12);
    return Math.fround(grid[best[best.length >> 1]!]!);
  });
}
