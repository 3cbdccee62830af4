/** A task's predictions against labelled examples. As in `trunkline.results`. */
import type { Classified, Gold, Learnable, Prediction, Scores } from "./families.js";

const MOST_WRONG = 50;

export interface LabelScores {
  precision: number;
  recall: number;
  f1: number;
  /** Gold answers of this label, and predicted ones. */
  support: number;
  predicted: number;
}

export interface Evaluation {
  task: string;
  family: string;
  examples: number;
  scores: Scores;
  labels: Record<string, LabelScores>;
  /** For classification, gold label -> predicted label -> number. */
  confusion: Record<string, Record<string, number>>;
  /** Up to 50 wrong examples. */
  wrong: { text: string; gold: Gold; predicted: Prediction }[];
  wrongCount: number;
}

/** Compares predictions with examples; `labels` are those that the task knows, entity types for NER. */
export function evaluation(
  task: { name: string; family: string; types: readonly string[] },
  family: Learnable,
  texts: readonly string[],
  gold: readonly Gold[],
  predicted: readonly Prediction[],
): Evaluation {
  const rows = new Map<string, [number, number, number]>(task.types.map((type) => [type, [0, 0, 0]]));
  const confusion: Record<string, Record<string, number>> = {};
  const wrong: Evaluation["wrong"] = [];
  gold.forEach((truth, n) => {
    const guess = predicted[n]!;
    const [right, said] = family.compare(truth, guess);
    const both = new Set([...right].filter((answer) => said.has(answer)));
    [both, said, right].forEach((answers, column) => {
      for (const answer of answers) {
        const label = (JSON.parse(answer) as string[]).at(-1)!;
        if (!rows.has(label)) rows.set(label, [0, 0, 0]);
        rows.get(label)![column]!++;
      }
    });
    if (task.family === "classification") {
      const row = (confusion[truth as string] ??= {});
      const label = (guess as Classified).label ?? "";
      row[label] = (row[label] ?? 0) + 1;
    }
    if (both.size < right.size || both.size < said.size) wrong.push({ text: texts[n]!, gold: truth, predicted: guess });
  });
  return {
    task: task.name,
    family: task.family,
    examples: gold.length,
    scores: family.score(gold, predicted),
    labels: Object.fromEntries(Array.from(rows, ([label, row]) => [label, labelScores(row)])),
    confusion,
    wrong: wrong.slice(0, MOST_WRONG),
    wrongCount: wrong.length,
  };
}

function labelScores([right, predicted, support]: readonly [number, number, number]): LabelScores {
  const f1 = (2 * right) / Math.max(predicted + support, 1);
  return { precision: right / Math.max(predicted, 1), recall: right / Math.max(support, 1), f1, support, predicted };
}
