/** WordPiece with offsets, read from a bundle's `tokenizer.json`; any other tokenizer is refused by name. */
import { type BertOptions, normalise, preTokens } from "./bert.js";
import { TrunklineError, said, short } from "./errors.js";

/** Tokens of a text without special tokens; offsets count code points. */
export interface Encoded {
  ids: number[];
  starts: number[];
  ends: number[];
}

interface Added {
  codes: number[];
  id: number;
}

/** Stands for half of a surrogate pair, which no tokenizer takes. */
const REPLACEMENT = 0xfffd;
const FILE = "tokenizer.json";
const WANTED = "WordPiece behind BertNormalizer and BertPreTokenizer, as encoders of the BERT kind have it";

export class WordPiece {
  /** Token ids that open and close a window. */
  readonly opening: number;
  readonly closing: number;
  readonly size: number;
  private readonly vocabulary: Map<string, number>;
  private readonly longest: number = 0;
  private readonly unknown: number;
  private readonly prefix: string;
  private readonly most: number;
  private readonly options: BertOptions;
  private readonly added: Added[];

  constructor(content: Uint8Array) {
    const raw = parsed(content);
    const { model, normalizer, pre_tokenizer: before } = raw;
    refuseOther("model", model, "WordPiece");
    refuseOther("normalizer", normalizer, "BertNormalizer");
    refuseOther("pre_tokenizer", before, "BertPreTokenizer");
    this.vocabulary = new Map(Object.entries(model.vocab as Record<string, number>));
    for (const piece of this.vocabulary.keys()) this.longest = Math.max(this.longest, piece.length);
    this.prefix = model.continuing_subword_prefix ?? "##";
    this.most = model.max_input_chars_per_word ?? 100;
    this.options = {
      clean: normalizer.clean_text ?? true,
      wide: normalizer.handle_chinese_chars ?? true,
      strip: normalizer.strip_accents ?? normalizer.lowercase ?? true,
      lower: normalizer.lowercase ?? true,
    };
    this.added = (raw.added_tokens ?? []).map(addedToken);
    this.added.sort((one, other) => other.codes.length - one.codes.length);
    const ids = new Set([...this.vocabulary.values(), ...this.added.map((token) => token.id)]);
    this.size = ids.size;
    this.unknown = this.idOf(model.unk_token ?? "[UNK]");
    [this.opening, this.closing] = this.frame(raw.post_processor);
  }

  /** The tokens of a text, given by its code points. */
  encode(codes: readonly number[]): Encoded {
    const found: Encoded = { ids: [], starts: [], ends: [] };
    const whole = codes.map((code) => (code >= 0xd800 && code < 0xe000 ? REPLACEMENT : code));
    let begin = 0;
    for (let place = 0; place < whole.length;) {
      const token = this.added.find(({ codes: own }) => own.every((code, n) => whole[place + n] === code));
      if (token === undefined) {
        place++;
        continue;
      }
      this.section(whole, begin, place, found);
      begin = place + token.codes.length;
      push(found, token.id, place, begin);
      place = begin;
    }
    this.section(whole, begin, whole.length, found);
    return found;
  }

  private section(codes: readonly number[], start: number, end: number, found: Encoded): void {
    if (start === end) return;
    const normal = normalise(codes, start, end, this.options);
    for (const [first, last] of preTokens(normal.codes)) {
      const characters = normal.codes.slice(first, last).map((code) => String.fromCodePoint(code));
      for (const [id, begin, close] of this.pieces(characters)) {
        push(found, id, normal.origins[first + begin]!, normal.origins[first + close - 1]! + 1);
      }
    }
  }

  /** The longest pieces from the left; the whole word is unknown if one is missing. */
  private pieces(characters: readonly string[]): [number, number, number][] {
    const whole: [number, number, number][] = [[this.unknown, 0, characters.length]];
    if (characters.length > this.most) return whole;
    const found: [number, number, number][] = [];
    for (let start = 0; start < characters.length;) {
      let end = Math.min(characters.length, start + this.longest);
      let id: number | undefined;
      for (; end > start; end--) {
        const piece = characters.slice(start, end).join("");
        id = this.vocabulary.get(start > 0 ? this.prefix + piece : piece);
        if (id !== undefined) break;
      }
      if (id === undefined) return whole;
      found.push([id, start, end]);
      start = end;
    }
    return found;
  }

  private idOf(token: string): number {
    const id = this.vocabulary.get(token);
    if (id === undefined) throw new TrunklineError(`${FILE} has no token ${short(token)}`, "one in the vocabulary");
    return id;
  }

  /** The two special tokens that a post-processor adds to a text. */
  private frame(raw: any): [number, number] {
    const special = raw?.special_tokens ?? {};
    const names: string[] | undefined = (raw?.single as any[] | undefined)?.map((part) =>
      "SpecialToken" in part ? part.SpecialToken.id : "",
    );
    if (raw?.type === "BertProcessing") return [raw.cls[1], raw.sep[1]];
    if (raw?.type !== "TemplateProcessing" || names?.length !== 3 || names[1] !== "" || !names[0] || !names[2]) {
      throw new TrunklineError(
        `${FILE} has the post_processor ${short(raw?.type)}`,
        "one token before a text, one behind",
      );
    }
    return [special[names[0]].ids[0], special[names[2]].ids[0]];
  }
}

function push(found: Encoded, id: number, start: number, end: number): void {
  found.ids.push(id);
  found.starts.push(start);
  found.ends.push(end);
}

function parsed(content: Uint8Array): any {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new TrunklineError(`${FILE} is no JSON (${said(error)})`, "the file of the bundle", "Fetch the bundle again");
  }
}

function refuseOther(part: string, found: any, wanted: string): void {
  if (found?.type === wanted) return;
  throw new TrunklineError(
    `${FILE} has the ${part} ${short(found?.type ?? null)}`,
    WANTED,
    "Take a bundle on another encoder, or run this one in Python",
  );
}

function addedToken(raw: any): Added {
  const other = ["normalized", "lstrip", "rstrip", "single_word"].find((name) => raw[name]);
  if (other !== undefined || !raw.content) {
    throw new TrunklineError(`${FILE} has the added token ${short(raw.content)} with ${other}`, "plain special tokens");
  }
  return { codes: Array.from(raw.content as string, (character) => character.codePointAt(0)!), id: raw.id };
}
