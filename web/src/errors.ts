/** A problem that the user can mend: what was given, what was expected, and what to do next. */
export class TrunklineError extends Error {
  readonly given: string;
  readonly expected: string;
  readonly todo: string;

  constructor(given: string, expected = "", todo = "") {
    const parts = [sentence(given), expected && `Expected ${sentence(expected)}`, todo && sentence(todo)];
    super(parts.filter(Boolean).join(" "));
    this.name = "TrunklineError";
    this.given = given;
    this.expected = expected;
    this.todo = todo;
  }
}

function sentence(text: string): string {
  return text.endsWith(".") ? text : `${text}.`;
}

/** The message of whatever was thrown, on one line. */
export function said(error: unknown): string {
  return String(error instanceof Error ? error.message : error)
    .split(/\s+/)
    .join(" ")
    .slice(0, 300);
}

/** A value as a message shows it. */
export function short(value: unknown): string {
  const text =
    Array.isArray(value) || (typeof value === "object" && value !== null)
      ? `${Array.isArray(value) ? "a list" : "an object"} of ${Object.keys(value).length} entries`
      : (JSON.stringify(value) ?? String(value));
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}
