/**
 * Words of a raw text, by the same table and rule as in Python (`trunkline.text.words`).
 *
 * Everything here counts in code points, as Python does; `Text` has the places in UTF-16, in which JavaScript counts.
 */
import { WORDS } from "./generated/words.js";

/** Start and end (exclusive), in code points. */
export type Border = readonly [number, number];

interface Table {
  version: number;
  unicode: string;
  pattern: string;
  classes: Record<string, number[]>;
  upper: number[];
}

const TABLE = WORDS as Table;
const PATTERN = new RegExp(TABLE.pattern, "g");
const OTHER = "s".charCodeAt(0);
const EXTENDING = new Set(["m", "j"]);

const [LETTER, UNSPACED, DIGIT] = ["l", "u", "d"];
/** Stops, dashes, and brackets or quotes. */
const SIGNS = [".,;:!?", "-\u2013/", "()[]\"'"];
/** What a shape says of a unit, and of it with its neighbours. */
const SHAPE = 20;
export const SHAPES = 3 * SHAPE;

let classes: Uint8Array | undefined;
let upper: Uint8Array | undefined;

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

/**
 * [units, `SHAPES`] what a lower-cased vocabulary hides of units: 0 or 1; of the unit, the one before it, the one behind.
 *
 * As `trunkline.text.words.unit_shapes`.
 */
export function unitShapes(text: Text, units: readonly Border[]): Float32Array {
  const rows = units.map((_, n) => shapeOf(text, units, n));
  const none = new Array<boolean>(SHAPE).fill(false);
  const found = units.flatMap((_, n) => [...rows[n]!, ...(rows[n - 1] ?? none), ...(rows[n + 1] ?? none)]);
  return Float32Array.from(found, Number);
}

function shapeOf(text: Text, units: readonly Border[], n: number): boolean[] {
  upper ??= filled(new Uint8Array(0x110000), TABLE.upper, 1);
  const [start, end] = units[n]!;
  const codes = text.codes.slice(start, end);
  const first = charClasses([codes[0]!]);
  const large = codes.filter((code) => upper![code]).length;
  const size = codes.filter((code) => !extending(code)).length;
  const title = upper[codes[0]!] === 1 && large === 1;
  const letters = first === LETTER || first === UNSPACED;
  const digits = first === DIGIT;
  const sign = codes.length === 1 ? String.fromCodePoint(codes[0]!) : "none";
  return [
    ...[title && size !== 1, large === size && size !== 1, title && size === 1],
    ...[large > 0 && large < size && !title, letters && large === 0],
    ...[1, 2, 4].map((count) => digits && size === count),
    digits && ![1, 2, 4].includes(size),
    ...SIGNS.map((group) => codes.length === 1 && group.includes(sign)),
    !letters && !digits,
    ...[letters && size <= 2, letters && size === 3, letters && size >= 8],
    ...[n === 0, n === units.length - 1],
    ...[n > 0 && units[n - 1]![1] === start, n + 1 < units.length && units[n + 1]![0] === end],
  ];
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
  for (const [name, borders] of Object.entries(TABLE.classes)) filled(table, borders, name.charCodeAt(0));
  return table;
}

/** A table with a value in ranges of code points. */
function filled(table: Uint8Array, borders: readonly number[], value: number): Uint8Array {
  for (let n = 0; n < borders.length; n += 2) table.fill(value, borders[n], borders[n + 1]! + 1);
  return table;
}
