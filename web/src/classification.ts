/** Text classification: a text is one unit with one label. */
import { TrunklineError } from "./errors.js";
import { type Classified, type Gold, type Learnable, type Prediction, rounded, softmax } from "./families.js";
import { textUnit } from "./units.js";

export const classification: Learnable = {
  mainScore: "accuracy",
  several: false,
  ownWindows: false,

  checkLabels(labels, where) {
    if (!labels.length) throw new TrunklineError(`${where} has no labels`, "at least one", "Fit the task again");
  },

  units: textUnit,

  probabilities: softmax,

  decode({ probabilities, labels }): Classified {
    const order = labels.map((_, n) => n).sort((a, b) => probabilities[b]! - probabilities[a]!);
    const ranked = Object.fromEntries(order.map((n) => [labels[n]!, rounded(probabilities[n]!)]));
    const label = labels[order[0]!]!;
    return { label, score: ranked[label]!, probabilities: ranked };
  },

  labels: (gold) => [...new Set(gold as string[])].sort(byCodePoint),
  chooseUnits: () => "text",
  classes: (gold) => new Set([labelOf(gold)]),
  targets: (_read, gold, labels) => [labels.indexOf(labelOf(gold))],
  transitions: () => null,
  covariance: () => null,

  score(gold, predicted) {
    const pairs = gold.map((truth, n) => [labelOf(truth), (predicted[n] as Classified).label] as const);
    const f1 = [...new Set(pairs.map(([truth]) => truth))].map((label) => {
      const right = pairs.filter(([truth, guess]) => truth === label && guess === label).length;
      const named = pairs.reduce((sum, pair) => sum + pair.filter((one) => one === label).length, 0);
      return (2 * right) / named;
    });
    const right = pairs.filter(([truth, guess]) => truth === guess).length;
    return {
      accuracy: right / Math.max(pairs.length, 1),
      macro_f1: f1.reduce((sum, value) => sum + value, 0) / Math.max(f1.length, 1),
    };
  },

  compare: (gold, prediction) => [new Set([JSON.stringify([labelOf(gold)])]), new Set(said(prediction))],
  confidences: (prediction) => said(prediction).map((answer) => [answer, (prediction as Classified).score]),
  likelihood: (gold, prediction) => (prediction as Classified).probabilities[labelOf(gold)],
};

/** The label, as `compare` writes it, if there is one. */
function said(prediction: Prediction): string[] {
  const { label } = prediction as Classified;
  return label === null ? [] : [JSON.stringify([label])];
}

function labelOf(gold: Gold): string {
  return gold as string;
}

/** Python's order of texts, which differs from UTF-16's beyond U+FFFF. */
export function byCodePoint(one: string, other: string): number {
  const [left, right] = [Array.from(one), Array.from(other)];
  const place = left.findIndex((character, n) => character !== right[n]);
  if (place < 0) return left.length - right.length;
  return left[place]!.codePointAt(0)! - (right[place]?.codePointAt(0) ?? -1);
}
