/** Safetensors files of float16 and float32 tensors, read into float32 and checked; and written in float16. */
import { TrunklineError, said } from "./errors.js";

export interface Tensor {
  dims: number[];
  data: Float32Array;
}

export type Tensors = Map<string, Tensor>;

const MOST_HEADER = 4 * 2 ** 20;
const MOST_TENSORS = 20_000;
const SIZES: Record<string, number> = { F16: 2, F32: 4 };
const WANTED = "a complete safetensors file of float16 or float32 tensors";

/** The tensors of a file and its text metadata; `where` names it in messages. */
export function readTensors(content: Uint8Array, where: string): { tensors: Tensors; metadata: Map<string, string> } {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const size = content.length < 8 ? -1 : Number(view.getBigUint64(0, true));
  if (size < 0 || size > Math.min(content.length - 8, MOST_HEADER)) {
    throw new TrunklineError(`${where}: a header of ${size} bytes in a file of ${content.length}`, WANTED);
  }
  try {
    const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content.subarray(8, 8 + size)));
    const { __metadata__: metadata = {}, ...entries } = header;
    if (Object.keys(entries).length > MOST_TENSORS) throw new Error(`more than ${MOST_TENSORS} tensors`);
    const body = content.subarray(8 + size);
    const tensors: Tensors = new Map(
      Object.entries(entries).map(([name, entry]) => [name, readTensor(name, entry, body)]),
    );
    const used = Object.values(entries).reduce(
      (sum: number, entry: any) => sum + entry.data_offsets[1] - entry.data_offsets[0],
      0,
    );
    if (used !== body.length) throw new Error(`${body.length - used} bytes belong to no tensor`);
    return { tensors, metadata: new Map(Object.entries(metadata)) };
  } catch (error) {
    throw new TrunklineError(`${where}: ${said(error)}`, WANTED, "Fetch or make the file again");
  }
}

function readTensor(name: string, entry: any, body: Uint8Array): Tensor {
  const [start, end] = entry.data_offsets;
  const size = SIZES[entry.dtype];
  if (size === undefined) throw new Error(`${name.slice(0, 60)} has the type ${entry.dtype}`);
  const count = entry.shape.reduce((product: number, side: number) => product * side, 1);
  const whole = [start, end, ...entry.shape].every((number) => Number.isSafeInteger(number) && number >= 0);
  if (!whole || entry.shape.length > 8 || end > body.length || end - start !== count * size) {
    throw new Error(`${name.slice(0, 60)} does not fit the file`);
  }
  const view = new DataView(body.buffer, body.byteOffset + start, end - start);
  const data = new Float32Array(count);
  for (let n = 0; n < count; n++)
    data[n] = size === 2 ? fromHalf(view.getUint16(2 * n, true)) : view.getFloat32(4 * n, true);
  if (!data.every(Number.isFinite)) throw new Error(`${name.slice(0, 60)} has values that are not finite`);
  return { dims: entry.shape, data };
}

/** A safetensors file in float16. */
export function writeTensors(tensors: Tensors, metadata: Record<string, string>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const [name, { dims, data }] of [...tensors].sort()) {
    header[name] = { dtype: "F16", shape: dims, data_offsets: [end, (end += 2 * data.length)] };
  }
  const encoded = new TextEncoder().encode(JSON.stringify(header));
  const size = Math.ceil(encoded.length / 8) * 8;
  const content = new Uint8Array(8 + size + end).fill(32);
  const view = new DataView(content.buffer);
  view.setBigUint64(0, BigInt(size), true);
  content.set(encoded, 8);
  let place = 8 + size;
  for (const [, { data }] of [...tensors].sort()) {
    for (const value of data) {
      view.setUint16(place, toHalf(value), true);
      place += 2;
    }
  }
  return content;
}

/** Values as float16 keeps them. */
export function halved(values: ArrayLike<number>): Float32Array {
  return Float32Array.from(values, (value) => fromHalf(toHalf(value)));
}

const BITS = new DataView(new ArrayBuffer(4));

function fromHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}

/** The bits of the nearest float16, ties to even. */
function toHalf(value: number): number {
  BITS.setFloat32(0, value);
  const sign = (BITS.getUint32(0) >>> 16) & 0x8000;
  const size = Math.abs(Math.fround(value));
  if (!(size < 65520)) throw new TrunklineError(`a head has the value ${value}`, "finite values that float16 can hold");
  const exponent = Math.max(Math.floor(Math.log2(size || 1e-9)), -14);
  const step = 2 ** (exponent - 10);
  // A power of two that was rounded up carries into the exponent by itself.
  const steps = evenly(size / step);
  return sign | (exponent === -14 ? steps : ((exponent + 14) << 10) + steps);
}

function evenly(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor;
}
