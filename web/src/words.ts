/**
 * Words of a raw text, by the same table and rule as in Python (`trunkline.text.words`).
 *
 * Everything here counts in code points, as Python does; `Text` has the places in UTF-16, in which JavaScript counts.
 */
import { WORDS } from "./generated/words.js";

/** Start and end (exclusive), in code points. */
export type Border = readonly [number, number];

const TABLE = WORDS as { version: number; unicode: string; pattern: string; classes: Record<string, number[]> };
const PATTERN = new RegExp(TABLE.pattern, "g");
const OTHER = "s".charCodeAt(0);
const EXTENDING = new Set(["m", "j"]);

let classes: Uint8Array | undefined;

/** A text with its code points, and where each of them (and the end) stands in UTF-16. */
export class Text {
  readonly codes: number[] = [];
  readonly places: number[] = [];
  private found: Border[] | undefined;

  constructor(readonly text: string) {
    let place = 0;
    for (const character of text) {
      this.codes.push(character.codePointAt(0)!);
      this.places.push(place);
      place += character.length;
    }
    this.places.push(place);
  }

  /** The words, in order and without overlap. */
  get words(): Border[] {
    this.found ??= splitWords(this.codes);
    return this.found;
  }

  /** The part between two code points. */
  slice(start: number, end: number): string {
    return this.text.slice(this.places[start], this.places[end]);
  }
}

/** The words of a text, given by its code points. */
export function splitWords(codes: readonly number[]): Border[] {
  return Array.from(charClasses(codes).matchAll(PATTERN), (match) => [match.index, match.index + match[0].length]);
}

/** Whether the character belongs to the one before it. */
export function extending(code: number): boolean {
  return EXTENDING.has(charClasses([code]));
}

/** The class letter of each code point. */
function charClasses(codes: readonly number[]): string {
  classes ??= readTable();
  let found = "";
  for (const code of codes) found += String.fromCharCode(classes[code]!);
  return found;
}

function readTable(): Uint8Array {
  const table = new Uint8Array(0x110000).fill(OTHER);
  for (const [name, borders] of Object.entries(TABLE.classes)) {
    for (let n = 0; n < borders.length; n += 2) table.fill(name.charCodeAt(0), borders[n], borders[n + 1]! + 1);
  }
  return table;
}
