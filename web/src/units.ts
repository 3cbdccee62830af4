/** Windows of a text, and its units: what gets a feature vector and a label. As in `trunkline.text.tokens`. */
import { TrunklineError } from "./errors.js";
import type { WordPiece } from "./tokenizer.js";
import { type Border, Text, extending } from "./words.js";

/** Token ids of the windows of a text, one after the other, their sizes, and where among the ids each token stands. */
export interface Windows {
  ids: number[];
  sizes: number[];
  place: number[];
}

/** A text with its tokens; offsets count code points. */
export interface ReadText extends Windows {
  text: Text;
  starts: number[];
  ends: number[];
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
  return { text: own, starts, ends, ...cover(ids, [tokenizer.opening], [tokenizer.closing], maxLength - 2, overlap) };
}

/**
 * Windows of at most `room` tokens, with others before and behind each.
 *
 * Where neighbours overlap, each answers for the half of the shared tokens that is nearer to its middle.
 */
export function cover(
  ids: readonly number[],
  before: number[],
  behind: number[],
  room: number,
  overlap: number,
): Windows {
  const starts = [0];
  const stride = room - overlap;
  for (let start = stride; ids.length > room && start < ids.length - overlap; start += stride) starts.push(start);
  const windows = starts.map((start) => [...before, ...ids.slice(start, start + room), ...behind]);
  const sizes = windows.map((window) => window.length);
  let end = 0;
  const shifts = sizes.map((size, number) => (end += size) - size - starts[number]! + before.length);
  const half = Math.floor(overlap / 2);
  const place = ids.map(
    (_, token) => shifts[firstIndex(starts.length - 1, (n) => starts[n + 1]! + half > token)]! + token,
  );
  return { ids: windows.flat(), sizes, place };
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

/** Words or pieces as units: a token belongs to each that it overlaps; one without a token gets the opening one. */
export function wordUnits(read: ReadText, borders: readonly Border[]): UnitText {
  const found = unitText(read, borders.length);
  for (const [token, unit] of overlaps(read.starts, read.ends, borders)) {
    found.token.push(read.place[token]!);
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
  let end = 0;
  const frame = read.sizes.flatMap((size) => [end, (end += size) - 1]);
  found.token = [...frame, ...read.place];
  found.unit = found.token.map(() => 0);
  return found;
}

function unitText({ ids, sizes }: Windows, count: number): UnitText {
  return { ids, sizes, token: [], unit: [], count };
}

/** The first index below `count` from which on `holds` is true. */
export function firstIndex(count: number, holds: (index: number) => boolean): number {
  let low = 0;
  for (let high = count; low < high;) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
