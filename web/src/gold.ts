/** Labels as users give them, checked before anything is learnt from them. */
import { TrunklineError, short } from "./errors.js";
import type { Gold, Span } from "./families.js";

/** The family that labels are of. */
export function familyOfGold(labels: readonly Gold[]): string {
  if (labels.every((label) => typeof label === "string")) return "classification";
  if (labels.every(Array.isArray)) return "ner";
  throw new TrunklineError(
    "some labels are texts and others lists",
    "for each text a label, or for each a list of spans",
  );
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
    else if (family === "ner" || typeof label !== "string" || !label) {
      throw new TrunklineError(
        `text ${n} has the label ${short(label)}`,
        family === "ner" ? "a list of spans" : "a text",
      );
    }
  });
  if (!learn) return;
  const classes = new Set(
    labels.flatMap((label) => (typeof label === "string" ? [label] : label.map((span) => span.label))),
  );
  const least = family === "ner" ? 1 : 2;
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

function checkSpan(span: Span, text: string): void {
  const { start, end, label } = span ?? {};
  const whole = Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start < end && end <= text.length;
  if (whole && typeof label === "string" && label) return;
  throw new TrunklineError(
    `the span ${JSON.stringify(span)} of ${short(text)}`,
    "{start, end, label} with 0 <= start < end <= length",
  );
}
