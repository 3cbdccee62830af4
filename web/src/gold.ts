/** Labels as users give them, checked before anything is learnt from them. */
import { TrunklineError, short } from "./errors.js";
import type { Gold, Span } from "./families.js";

/** The family that labels are of. */
export function familyOfGold(labels: readonly Gold[]): string {
  if (labels.every((label) => typeof label === "string")) return "classification";
  if (labels.every(Array.isArray)) {
    const items: unknown[] = labels.flat();
    if (items.length && items.every((item) => typeof item === "string")) return "multilabel";
    if (items.every((item) => typeof item !== "string")) return "ner";
  }
  throw new TrunklineError("labels of several kinds", "for each text a label, or a list of labels, or a list of spans");
}

/** Raises an error unless there is a good label for each text and, with `learn`, something to learn. */
export function checkGold(family: string, texts: readonly string[], labels: readonly Gold[], learn: boolean): void {
  if (texts.length !== labels.length) {
    throw new TrunklineError(
      `${texts.length} texts and ${labels.length} labels`,
      "one label or list of spans for each text",
    );
  }
  texts.forEach((text, n) => {
    const label: unknown = labels[n];
    if (family === "ner" && Array.isArray(label)) for (const span of label) checkSpan(span, text);
    else if (family === "multilabel") checkLabels(label, n);
    else if (family === "ner" || typeof label !== "string" || !label) {
      throw new TrunklineError(
        `text ${n} has the label ${short(label)}`,
        family === "ner" ? "a list of spans" : "a text",
      );
    }
  });
  if (!learn) return;
  const classes = new Set(
    labels.flatMap((label) =>
      typeof label === "string" ? [label] : label.map((one) => (typeof one === "string" ? one : one.label)),
    ),
  );
  const least = family === "classification" ? 2 : 1;
  if (family === "multilabel" && new Set((labels as string[][]).map((own) => JSON.stringify([...own].sort()))).size < 2)
    throw new TrunklineError("all texts have the same labels", "texts with a label and without it", "Label more texts");
  if (classes.size < least)
    throw new TrunklineError(`${classes.size} different labels`, `at least ${least}`, "Label more texts");
  if (new Set(texts.map((text) => text.split(/\s+/).join(" "))).size < 2) {
    throw new TrunklineError(
      `${texts.length} texts that are all the same`,
      "at least two different ones",
      "Label more texts",
    );
  }
}

function checkLabels(labels: unknown, n: number): void {
  const good = Array.isArray(labels) && labels.every((label) => typeof label === "string" && label.trim());
  if (good && new Set(labels).size === labels.length) return;
  throw new TrunklineError(`text ${n} has the labels ${short(labels)}`, "a list of different labels, empty for none");
}

function checkSpan(span: Span, text: string): void {
  const { start, end, label } = span ?? {};
  const whole = Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start < end && end <= text.length;
  if (whole && typeof label === "string" && label) return;
  throw new TrunklineError(
    `the span ${JSON.stringify(span)} of ${short(text)}`,
    "{start, end, label} with 0 <= start < end <= length",
  );
}
