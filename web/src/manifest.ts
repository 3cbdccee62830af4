/** The manifest of a bundle, checked against the schema that Python checks it with. */
import { TrunklineError, said, short } from "./errors.js";
import { SCHEMA } from "./generated/schema.js";
import type { UnitKind } from "./units.js";

export interface EncoderFacts {
  model_type: string;
  hidden_size: number;
  intermediate_size: number;
  n_layers: number;
  n_heads: number;
  fork: number;
  max_length: number;
  overlap: number;
  pad_id: number;
  activation: string;
  vocabulary_size: number;
}

export interface Manifest {
  version: number;
  trunkline: string;
  name: string;
  encoder: EncoderFacts;
  backbone: string;
  weights: { kind: "float32" | "int8" | "int4" } & Record<string, unknown>;
  lora_targets: string[];
  graphs: Partial<Record<string, string>>;
  checkpoint: Record<string, string>;
  adapters: Record<string, string>;
  tasks: Record<string, { family: string; file: string }>;
  files: Record<string, { sha256: string; bytes: number }>;
  licences: { part: string; licence: string }[];
  info: Record<string, unknown>;
}

/** What cross-validation said of a label's examples when they were held out. */
export interface HeldOut {
  /** Scores of predictions that were right, and wrong. */
  right?: number[];
  wrong?: number[];
  /** The label's chance where it was true. */
  true?: number[];
  /** How many are true. */
  count?: number;
}

/** What a task's file says of decisions; as in `trunkline.bundle.manifest`. */
export interface Decisions {
  min_score?: number;
  thresholds?: Record<string, number>;
  /** The label that stands for none of the others, and is said as null. */
  other?: string;
  held_out?: Record<string, HeldOut>;
  chosen?: Record<string, unknown>;
}

/** What a task's file says of itself. */
export interface Description {
  format: 2;
  kind: "task";
  family: string;
  backbone: string;
  fork: number;
  labels: string[];
  primary: string;
  alpha: number;
  units: UnitKind;
  info: Record<string, unknown>;
  decisions?: Decisions;
}

type Schema = Record<string, any>;

export const MANIFEST = "manifest.json";
export const TOKENIZER = "tokenizer.json";
export const MOST_MANIFEST = 8 * 2 ** 20;
export const MOST_ADAPTER = 256 * 2 ** 20;
const MOST_TOKENIZER = 64 * 2 ** 20;
const MOST_WEIGHTS = 2 ** 31;
const MOST_SHOWN = 20;

const properties = (SCHEMA as Schema).properties as Schema;
const NAME: Schema = properties.tasks.propertyNames;
const HASH: Schema = properties.backbone;
const WHOLE = { type: "integer", minimum: 0, maximum: 1000 };
const NUMBER = { type: "number", minimum: 0, maximum: 1e6 };
const COMMON = {
  format: { const: 2 },
  family: { type: "string", ...NAME },
  backbone: HASH,
  fork: WHOLE,
  alpha: NUMBER,
};
const NUMBERS = { type: "array", maxItems: 10_000, items: NUMBER };
const BY_LABEL = { type: "object", maxProperties: 10_000, propertyNames: { maxLength: 1000 } };
const HELD_OUT = {
  type: "object",
  properties: { right: NUMBERS, wrong: NUMBERS, true: NUMBERS, count: { type: "integer", minimum: 0 } },
  additionalProperties: false,
};
const DECISIONS = {
  type: "object",
  properties: {
    min_score: NUMBER,
    thresholds: { ...BY_LABEL, additionalProperties: NUMBER },
    other: { type: "string", maxLength: 1000 },
    held_out: { ...BY_LABEL, additionalProperties: HELD_OUT },
    chosen: { type: "object" },
  },
  additionalProperties: false,
};
const TASK = {
  ...COMMON,
  kind: { const: "task" },
  labels: { type: "array", maxItems: 10_000, items: { type: "string", maxLength: 1000 } },
  primary: { type: "string", pattern: "^([A-Za-z0-9][A-Za-z0-9._-]{0,99}@[0-9a-f]{64}){0,1}$" },
  units: { enum: ["words", "pieces", "text", "question"] },
  info: { type: "object" },
};
const ADAPTER = { ...COMMON, kind: { const: "adapter" } };

/** Reads a manifest; lists every problem. */
export function parseManifest(content: Uint8Array): Manifest {
  const raw = parseJson(content, MANIFEST);
  if (raw?.format !== "trunkline-bundle")
    throw new TrunklineError(`${MANIFEST} is not the manifest of a bundle`, "a bundle");
  if (Number.isInteger(raw.version) && raw.version !== 2) {
    throw new TrunklineError(`${MANIFEST} has version ${raw.version}`, "version 2", "Export the bundle again");
  }
  refuse(MANIFEST, [...problemsOf(raw, SCHEMA as Schema, "the manifest")]);
  refuse(MANIFEST, [...contradictions(raw)]);
  return raw;
}

/** Reads what a task's or adapter's file says of itself. */
export function parseDescription(text: string, kind: "task" | "adapter", where: string): Description {
  const raw = parseJson(new TextEncoder().encode(text), where);
  const known = kind === "task" ? TASK : ADAPTER;
  const properties = kind === "task" ? { ...known, decisions: DECISIONS } : known;
  const schema = { type: "object", required: Object.keys(known), properties, additionalProperties: false };
  refuse(where, [...problemsOf(raw, schema, "its description")]);
  if (kind === "task" && new Set(raw.labels).size < raw.labels.length) refuse(where, ["a label stands there twice"]);
  return raw;
}

/** The family whose branch a family's tasks sit on: mostly its own. */
export function branchOf(family: string): string {
  return family === "multilabel" ? "classification" : family;
}

/** Raises an error unless this is a name of a task. */
export function checkName(name: string): void {
  for (const problem of problemsOf(name, { type: "string", ...NAME }, "the name")) {
    throw new TrunklineError(problem, "", "Take letters, digits, '.', '_' and '-'");
  }
}

/** The most bytes that a file of a bundle may have. */
export function limitOf(file: string, manifest: Manifest): number {
  if (file === TOKENIZER) return MOST_TOKENIZER;
  return Object.values(manifest.graphs).includes(file) ? MOST_WEIGHTS : MOST_ADAPTER;
}

/** The LoRA inputs of the branch graph, `LAYER.TARGET` -> [inputs, outputs]. */
export function loraShapes({ encoder, lora_targets }: Manifest): Map<string, [number, number]> {
  const { hidden_size: hidden, intermediate_size: wide, fork, n_layers } = encoder;
  const sizes: Record<string, [number, number]> = {
    qkv: [hidden, 3 * hidden],
    out: [hidden, hidden],
    up: [hidden, wide],
    down: [wide, hidden],
  };
  const found = new Map<string, [number, number]>();
  for (let layer = fork; layer < n_layers; layer++) {
    for (const target of lora_targets) found.set(`${layer}.${target}`, sizes[target]!);
  }
  return found;
}

function parseJson(content: Uint8Array, where: string): any {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new TrunklineError(`${where} is no JSON (${said(error)})`, "the file as it was written", "Fetch it again");
  }
}

function refuse(where: string, problems: string[]): void {
  if (!problems.length) return;
  const more = problems.length > MOST_SHOWN ? [`and ${problems.length - MOST_SHOWN} more`] : [];
  const listed = [...problems.slice(0, MOST_SHOWN), ...more].map((problem) => `\n  - ${problem}`).join("");
  throw new TrunklineError(
    `${where} has ${problems.length} problem(s):${listed}\n`,
    "a file of format 2",
    "Make or fetch it again",
  );
}

/** Every way in which JSON differs from a schema; supports what the schemas here use. */
function* problemsOf(value: any, schema: Schema, where: string): Generator<string> {
  if ("const" in schema || "enum" in schema) {
    const allowed: unknown[] = schema.enum ?? [schema.const];
    if (!allowed.includes(value)) yield `${where} is ${short(value)}, expected ${allowed.join(" or ")}`;
  } else if (typeOf(value) !== schema.type && !(schema.type === "number" && typeOf(value) === "integer")) {
    yield `${where} is ${short(value)}, expected ${schema.type}`;
  } else if (schema.type === "object") {
    yield* objectProblems(value, schema, where === "the manifest" ? "" : `${where}.`);
  } else if (schema.type === "array") {
    if (value.length > (schema.maxItems ?? Infinity)) yield `${where} has ${value.length} entries`;
    for (const [number, item] of value.entries()) yield* problemsOf(item, schema.items, `${where}[${number}]`);
  } else if (schema.type === "string") {
    if (value.length > (schema.maxLength ?? Infinity)) yield `${where} has ${value.length} characters`;
    if (schema.pattern && !new RegExp(schema.pattern).test(value))
      yield `${where} is ${short(value)}, expected ${schema.pattern}`;
  } else if (!(value >= (schema.minimum ?? -Infinity) && value <= (schema.maximum ?? Infinity))) {
    yield `${where} is ${value}, expected ${schema.minimum} to ${schema.maximum}`;
  }
}

function* objectProblems(value: any, schema: Schema, where: string): Generator<string> {
  const known: Schema = schema.properties ?? {};
  const other = schema.additionalProperties ?? true;
  for (const key of schema.required ?? []) if (!Object.hasOwn(value, key)) yield `${where}${key} is missing`;
  if (Object.keys(value).length > (schema.maxProperties ?? Infinity)) yield `${where} has too many entries`;
  for (const [key, item] of Object.entries(value)) {
    if (schema.propertyNames) yield* problemsOf(key, { type: "string", ...schema.propertyNames }, `a name in ${where}`);
    if (Object.hasOwn(known, key)) yield* problemsOf(item, known[key], where + key);
    else if (typeof other === "object") yield* problemsOf(item, other, where + key);
    else if (!other) yield `${where}${key} is an unknown key`;
  }
}

function typeOf(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (Number.isInteger(value)) return "integer";
  return value === null ? "null" : typeof value;
}

/** How keys hang together. */
function* contradictions({ encoder, files, graphs, adapters, tasks, checkpoint }: Manifest): Generator<string> {
  if (encoder.fork > encoder.n_layers) yield "encoder.fork is above encoder.n_layers";
  if (encoder.hidden_size % encoder.n_heads) yield "encoder.hidden_size is no multiple of encoder.n_heads";
  if (encoder.overlap > Math.floor((encoder.max_length - 2) / 2)) yield "encoder.overlap is too large";
  if (encoder.pad_id >= encoder.vocabulary_size) yield "encoder.pad_id is not in the vocabulary";
  const parts = [graphs, checkpoint, adapters].flatMap((part) => Object.values(part) as string[]);
  const named = [TOKENIZER, ...parts, ...Object.values(tasks).map((task) => task.file)];
  for (const file of named) if (!Object.hasOwn(files, file)) yield `${file} is not among files`;
  if (new Set(named).size < named.length) yield "a file stands for several parts";
}
