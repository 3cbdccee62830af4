/** Windows of a tokenised text, and its units: what gets a feature vector and a label. As in `trunkline.text.tokens`. */
import { TrunklineError } from "./errors.js";
import type { WordPiece } from "./tokenizer.js";
import { type Border, Text, extending } from "./words.js";

/** A window: ids with opening and closing token, where these begin among those of all windows, its first token, and the
 * tokens that it answers for. */
export interface Window {
  ids: number[];
  begin: number;
  first: number;
  own: readonly [number, number];
}

/** A text with its tokens. */
export interface ReadText {
  text: Text;
  starts: number[];
  ends: number[];
  windows: Window[];
}

/** Ids of all windows, their sizes, and pairs of a token (index into `ids`) and the unit that it belongs to. */
export interface UnitText {
  ids: number[];
  sizes: number[];
  token: number[];
  unit: number[];
  count: number;
}

/** The longest text. */
const MOST = 1_000_000;

export type UnitKind = "words" | "pieces" | "text" | "question";

/** Tokenises a text; nothing is cut off. */
export function readText(text: string, tokenizer: WordPiece, maxLength: number, overlap: number): ReadText {
  if (typeof text !== "string") throw new TrunklineError(`a text is of type ${typeof text}`, "a string");
  const own = new Text(text);
  if (own.codes.length > MOST) throw new TrunklineError(`a text of ${own.codes.length} characters`, `at most ${MOST}`);
  const { ids, starts, ends } = tokenizer.encode(own.codes);
  const room = maxLength - 2;
  const stride = room - overlap;
  const places = [0];
  if (ids.length > room) {
    for (let start = stride; start < Math.max(ids.length - overlap, 1); start += stride) places.push(start);
  }
  const half = Math.floor(overlap / 2);
  const windows = places.map((start, number) => ({
    ids: [tokenizer.opening, ...ids.slice(start, start + room), tokenizer.closing],
    begin: number * maxLength,
    first: start,
    own: [
      number === 0 ? 0 : start + half,
      number === places.length - 1 ? ids.length : start + stride + half,
    ] as const,
  }));
  return { text: own, starts, ends, windows };
}

/** Borders of what gets a label: words, or pieces of the tokenizer; none for the text as a whole. */
export function bordersOf(read: ReadText, kind: UnitKind): Border[] {
  if (kind === "text") return [];
  return kind === "pieces" ? pieceBorders(read) : read.text.words;
}

/** The words, cut wherever a piece of the tokenizer begins or ends inside of one, but never before a mark. */
function pieceBorders(read: ReadText): Border[] {
  const cuts = [...new Set([...read.starts, ...read.ends])].sort((a, b) => a - b);
  const found: Border[] = [];
  let next = 0;
  for (const [start, end] of read.text.words) {
    let begin = start;
    while (next < cuts.length && cuts[next]! <= start) next++;
    for (; next < cuts.length && cuts[next]! < end; next++) {
      if (extending(read.text.codes[cuts[next]!]!)) continue;
      found.push([begin, cuts[next]!]);
      begin = cuts[next]!;
    }
    found.push([begin, end]);
  }
  return found;
}

/** Words or pieces as units: a token belongs to every unit that it overlaps; one without a token gets the opening one. */
export function wordUnits(read: ReadText, borders: readonly Border[]): UnitText {
  const found = unitText(read, borders.length);
  for (const [token, unit] of overlaps(read.starts, read.ends, borders)) {
    found.token.push(locate(read, token));
    found.unit.push(unit);
  }
  const held = new Set(found.unit);
  for (let unit = 0; unit < borders.length; unit++) {
    if (held.has(unit)) continue;
    found.token.push(0);
    found.unit.push(unit);
  }
  return found;
}

/** Pairs of a token and a unit that overlap, token by token. */
export function overlaps(starts: number[], ends: number[], borders: readonly Border[]): [number, number][] {
  const found: [number, number][] = [];
  starts.forEach((start, token) => {
    const end = ends[token]!;
    const first = firstIndex(borders.length, (unit) => borders[unit]![1] > start);
    for (let unit = first; unit < borders.length && borders[unit]![0] < end; unit++) found.push([token, unit]);
  });
  return found;
}

/** A whole text as one unit: all its tokens, the special ones included. */
export function textUnit(read: ReadText): UnitText {
  const found = unitText(read, 1);
  for (const { ids, begin, first, own } of read.windows) {
    const inner = ids.length - 2;
    found.token.push(begin);
    for (let n = Math.max(own[0] - first, 0); n < Math.min(own[1] - first, inner); n++) found.token.push(begin + n + 1);
    found.token.push(begin + inner + 1);
  }
  found.unit = found.token.map(() => 0);
  return found;
}

function unitText(read: ReadText, count: number): UnitText {
  const windows = read.windows.map((window) => window.ids);
  return { ids: windows.flat(), sizes: windows.map((ids) => ids.length), token: [], unit: [], count };
}

/** Where in all windows' ids a token of the text stands, in the window that answers for it. */
function locate({ windows }: ReadText, token: number): number {
  const { begin, first } = windows[firstIndex(windows.length - 1, (number) => token < windows[number]!.own[1])]!;
  return begin + token - first + 1;
}

/** The first index below `count` from which on `holds` is true. */
export function firstIndex(count: number, holds: (index: number) => boolean): number {
  let low = 0;
  for (let high = count; low < high; ) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
