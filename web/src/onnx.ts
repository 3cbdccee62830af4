/** ONNX files as messages of protobuf, as far as a branch graph must be read here. */
import { TrunklineError } from "./errors.js";

/** Numbers of fields: of a model its graph, of a graph its constants and inputs, of these the name. */
const GRAPH = 7;
const CONSTANT = 5;
const INPUT = 11;
const NAME = { [CONSTANT]: 8, [INPUT]: 1 } as const;

interface Field {
  number: number;
  /** From the field's tag on. */
  whole: Uint8Array;
  content: Uint8Array;
}

/**
 * A branch graph whose adapters may be left out as one whose adapters must be given, as `branch-required` is.
 *
 * An input may be left out where a constant of the same name stands for it. onnxruntime-web cannot be fed such inputs,
 * so these constants go. The weights stay as they are.
 */
export function required(model: Uint8Array): Uint8Array {
  const inputs = new Set<string>();
  // A file may hold several models one behind the other, which any reader takes for one.
  for (const { number, content } of fields(model)) {
    if (number !== GRAPH) continue;
    for (const field of fields(content)) if (field.number === INPUT) inputs.add(nameOf(field, INPUT));
  }
  const parts: Uint8Array[] = [];
  for (const { number, whole, content } of fields(model)) {
    if (number !== GRAPH) parts.push(whole);
    else {
      const kept = Array.from(fields(content)).filter(
        (field) => !(field.number === CONSTANT && inputs.has(nameOf(field, CONSTANT))),
      );
      const size = kept.reduce((sum, field) => sum + field.whole.length, 0);
      parts.push(varint(GRAPH * 8 + 2), varint(size), ...kept.map((field) => field.whole));
    }
  }
  const found = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    found.set(part, place);
    place += part.length;
  }
  return found;
}

function* fields(message: Uint8Array): Generator<Field> {
  let place = 0;
  const number = (): number => {
    let found = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[place++];
      if (byte === undefined) throw new TrunklineError("the branch graph ends too early", "a whole ONNX file");
      found += (byte & 127) * scale;
      if (byte < 128) return found;
    }
  };
  while (place < message.length) {
    const start = place;
    const tag = number();
    const kind = tag % 8;
    const size = kind === 2 ? number() : kind === 5 ? 4 : kind === 1 ? 8 : 0;
    if (kind === 0) number();
    else if (![1, 2, 5].includes(kind) || place + size > message.length) {
      throw new TrunklineError(`the branch graph has a field of kind ${kind} and ${size} bytes`, "a whole ONNX file");
    }
    const begin = place;
    place += size;
    yield { number: (tag - kind) / 8, whole: message.subarray(start, place), content: message.subarray(begin, place) };
  }
}

function nameOf({ content }: Field, kind: typeof CONSTANT | typeof INPUT): string {
  for (const { number, content: name } of fields(content)) {
    if (number === NAME[kind]) return new TextDecoder().decode(name);
  }
  return "";
}

function varint(number: number): Uint8Array {
  const found: number[] = [];
  for (; number > 127; number = Math.floor(number / 128)) found.push((number % 128) + 128);
  return Uint8Array.from([...found, number]);
}
