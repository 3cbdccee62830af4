/**
 * What BERT's normalizer and pre-tokenizer do, as in the library `tokenizers`, with the origin of every character.
 *
 * The table is made of that library itself by scripts/bert_table.py, so that no platform's Unicode version matters.
 */
import { BERT } from "./generated/bert.js";

/** The switches of a `BertNormalizer`. */
export interface BertOptions {
  clean: boolean;
  wide: boolean;
  strip: boolean;
  lower: boolean;
}

/** Characters, and for each the character of the text that it came from. */
export interface Normal {
  codes: number[];
  origins: number[];
}

const TABLE = BERT as {
  ranges: Record<"dropped" | "blank" | "wide" | "marks" | "space" | "punctuation", number[]>;
  strip: Record<string, number[]>;
  lower: Record<string, number[]>;
};
const BITS = { dropped: 1, blank: 2, wide: 4, marks: 8, space: 16, punctuation: 32 } as const;
const BLANK = 32;
const HANGUL = { first: 0xac00, last: 0xd7a3, lead: 0x1100, vowel: 0x1161, tail: 0x11a7, vowels: 21, tails: 28 };

interface Tables {
  kinds: Uint8Array;
  strip: Map<number, number[]>;
  lower: Map<number, number[]>;
}

let tables: Tables | undefined;

/** Normalises `codes[start]` to `codes[end]` (exclusive). */
export function normalise(codes: readonly number[], start: number, end: number, options: BertOptions): Normal {
  const { kinds, strip, lower } = (tables ??= readTables());
  const found: Normal = { codes: [], origins: [] };
  let origin = start;
  const last = (code: number): void => {
    for (const part of (options.lower && lower.get(code)) || [code]) {
      found.codes.push(part);
      found.origins.push(origin);
    }
  };
  const put = (code: number): void => {
    if (!options.strip) last(code);
    else if (code >= HANGUL.first && code <= HANGUL.last) hangul(code).forEach(last);
    else if (!(kinds[code]! & BITS.marks)) (strip.get(code) ?? [code]).forEach(last);
  };
  for (; origin < end; origin++) {
    let code = codes[origin]!;
    const kind = kinds[code]!;
    if (options.clean && kind & BITS.dropped) continue;
    if (options.clean && kind & BITS.blank) code = BLANK;
    if (options.wide && kind & BITS.wide) put(BLANK);
    put(code);
    if (options.wide && kind & BITS.wide) put(BLANK);
  }
  return found;
}

/** Ranges of words of normalised characters: blanks part them, punctuation stands alone. */
export function preTokens(codes: readonly number[]): [number, number][] {
  const { kinds } = (tables ??= readTables());
  const found: [number, number][] = [];
  let begin = -1;
  const close = (end: number): void => {
    if (begin >= 0) found.push([begin, end]);
    begin = -1;
  };
  codes.forEach((code, place) => {
    const kind = kinds[code]!;
    if (kind & (BITS.space | BITS.punctuation)) close(place);
    if (kind & BITS.punctuation) found.push([place, place + 1]);
    else if (!(kind & BITS.space) && begin < 0) begin = place;
  });
  close(codes.length);
  return found;
}

/** A syllable taken apart (the Unicode standard, chapter 3.12). */
function hangul(code: number): number[] {
  const index = code - HANGUL.first;
  const tail = index % HANGUL.tails;
  const rest = Math.floor(index / HANGUL.tails);
  const parts = [HANGUL.lead + Math.floor(rest / HANGUL.vowels), HANGUL.vowel + (rest % HANGUL.vowels)];
  return tail ? [...parts, HANGUL.tail + tail] : parts;
}

function readTables(): Tables {
  const kinds = new Uint8Array(0x110000);
  for (const [name, bit] of Object.entries(BITS)) {
    const borders = TABLE.ranges[name as keyof typeof BITS];
    for (let n = 0; n < borders.length; n += 2) {
      for (let code = borders[n]!; code <= borders[n + 1]!; code++) kinds[code]! |= bit;
    }
  }
  return { kinds, strip: byCode(TABLE.strip), lower: byCode(TABLE.lower) };
}

function byCode(groups: Record<string, number[]>): Map<number, number[]> {
  const found = new Map<number, number[]>();
  for (const [text, codes] of Object.entries(groups)) {
    const parts = Array.from(text, (character) => character.codePointAt(0)!);
    for (const code of codes) found.set(code, parts);
  }
  return found;
}
