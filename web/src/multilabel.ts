/** Classification with any number of labels a text: a yes or no for each label. As in `trunkline.tasks.multilabel`. */
import { byCodePoint, classification } from "./classification.js";
import { type Gold, type Learnable, type Prediction, type Several, rounded } from "./families.js";
import { textUnit } from "./units.js";

/** Probability from which a label is said where the task has no threshold for it. */
const THRESHOLD = 0.5;

export const multilabel: Learnable = {
  mainScore: "micro_f1",
  several: true,
  ownWindows: false,
  units: textUnit,
  checkLabels: (labels, where) => classification.checkLabels(labels, where),
  chooseUnits: () => "text",
  transitions: () => null,
  covariance: () => null,

  probabilities: (logits) => logits.map((value) => 0.5 + 0.5 * Math.tanh(0.5 * value)),

  decode({ probabilities, labels, decisions }): Several {
    const order = labels.map((_, n) => n).sort((a, b) => probabilities[b]! - probabilities[a]!);
    const thresholds = decisions?.thresholds ?? {};
    const least = (label: string): number => (Object.hasOwn(thresholds, label) ? thresholds[label]! : THRESHOLD);
    return {
      labels: order.filter((n) => probabilities[n]! >= least(labels[n]!)).map((n) => labels[n]!),
      probabilities: Object.fromEntries(order.map((n) => [labels[n]!, rounded(probabilities[n]!)])),
    };
  },

  labels: (gold) => [...new Set((gold as readonly string[][]).flat())].sort(byCodePoint),
  classes: (gold) => new Set(labelsOf(gold)),
  targets: (_read, gold, labels) => labels.map((label) => +labelsOf(gold).includes(label)),

  score(gold, predicted) {
    const pairs = gold.map((truth, n) => [new Set(labelsOf(truth)), new Set(saidOf(predicted[n]!))] as const);
    const names = [...new Set(pairs.flatMap(([truth, said]) => [...truth, ...said]))];
    const counts = names.map((label) => {
      const both = pairs.filter(([truth, said]) => truth.has(label) && said.has(label)).length;
      return [both, pairs.reduce((sum, [truth, said]) => sum + +truth.has(label) + +said.has(label), 0)] as const;
    });
    const [right, all] = [0, 1].map((place) => counts.reduce((sum, one) => sum + one[place]!, 0)) as [number, number];
    const exact = pairs.filter(([truth, said]) => truth.size === said.size && [...truth].every((one) => said.has(one)));
    const known = names.filter((label) => pairs.some(([truth]) => truth.has(label)));
    const precisions = known.map((label) => {
      const scores = predicted.map((one) => chancesOf(one)[label] ?? 0);
      return averagePrecision(
        pairs.map(([truth]) => truth.has(label)),
        scores,
      );
    });
    return {
      micro_f1: (2 * right) / Math.max(all, 1),
      macro_f1: mean(counts.map(([both, sum]) => (2 * both) / sum)),
      exact_match: exact.length / Math.max(pairs.length, 1),
      average_precision: mean(precisions),
    };
  },

  compare: (gold, prediction) => [new Set(labelsOf(gold).map(answer)), new Set(saidOf(prediction).map(answer))],
  likelihood: (gold, prediction) => {
    const chances = chancesOf(prediction);
    if (!labelsOf(gold).every((label) => Object.hasOwn(chances, label))) return undefined;
    const own = new Set(labelsOf(gold));
    return Object.entries(chances).reduce((product, [name, chance]) => product * (own.has(name) ? chance : 1 - chance), 1);
  },
  confidences: (prediction) => saidOf(prediction).map((label) => [answer(label), chancesOf(prediction)[label]!]),
};

/** Mean precision at each true item, by falling scores, equal ones at once; at least one is true. */
function averagePrecision(truth: readonly boolean[], scores: readonly number[]): number {
  const right = truth.map((_, n) => n).filter((n) => truth[n]);
  const precisions = right.map((item) => {
    const above = scores.map((_, n) => n).filter((n) => scores[n]! >= scores[item]!);
    return above.filter((n) => truth[n]).length / above.length;
  });
  return mean(precisions);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
}

function answer(label: string): string {
  return JSON.stringify([label]);
}

function labelsOf(gold: Gold): readonly string[] {
  return gold as readonly string[];
}

function saidOf(prediction: Prediction): readonly string[] {
  return (prediction as Several).labels;
}

function chancesOf(prediction: Prediction): Record<string, number> {
  return (prediction as Several).probabilities;
}
