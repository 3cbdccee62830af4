/** Task files and primary adapters, read for a bundle and checked; and their LoRA as inputs of the branch graph. */
import { TrunklineError } from "./errors.js";
import { type Decisions, type Description, type Manifest, branchOf, loraShapes, parseDescription } from "./manifest.js";
import { type Tensor, type Tensors, readTensors, writeTensors } from "./tensors.js";
import type { UnitKind } from "./units.js";
import { SHAPES } from "./words.js";

/**
 * A linear head: `weight` [hidden, labels], `bias` [labels], and `transitions` [labels + 1, labels] or none.
 *
 * What shapes of units add is in `shapes` [SHAPES, labels]; of a head that was just fitted, in further rows of `weight`.
 */
export interface Head {
  weight: Float32Array;
  bias: Float32Array;
  transitions: Float32Array | null;
  shapes?: Float32Array | null;
}

export interface Task {
  name: string;
  family: string;
  labels: string[];
  units: UnitKind;
  head: Head;
  /** Its own LoRA as inputs of the branch graph, or null where it sits on its family's primary adapter. */
  lora: Tensors | null;
  content: Uint8Array<ArrayBuffer>;
  decisions: Decisions;
  info: Record<string, unknown>;
}

const TARGETS: Record<string, string[]> = { qkv: ["query", "key", "value"], out: ["out"], up: ["up"], down: ["down"] };
const HEAD = ["head.weight", "head.bias", "head.transitions", "head.shapes"];

/** Reads a task's file for the bundle of a manifest. */
export function readTask(content: Uint8Array<ArrayBuffer>, manifest: Manifest, name: string): Task {
  const where = `task ${name}`;
  const { tensors, said } = opened(content, "task", where, manifest);
  const entry = Object.hasOwn(manifest.tasks, name) ? manifest.tasks[name] : undefined;
  if (entry && entry.family !== said.family) {
    throw new TrunklineError(`${where} is of family ${said.family}`, `${entry.family}, as the manifest says`);
  }
  const lora = fused(tensors, manifest, where);
  const own = [...tensors.keys()].some((key) => key.startsWith("lora."));
  const expected = own ? "" : primaryOf(said.family, manifest);
  if (said.primary !== expected) {
    throw new TrunklineError(
      `${where} sits on the adapter ${said.primary.slice(0, 40) || "none"}`,
      `${expected.slice(0, 40) || "none"}, that of this bundle`,
      "Fit the task again on this bundle",
    );
  }
  const { labels, units, info, family, decisions = {} } = said;
  const hidden = manifest.encoder.hidden_size;
  const transitions = tensors.get("head.transitions");
  const shapes = tensors.has("head.shapes");
  const head = {
    weight: shaped(tensors, "head.weight", [hidden, labels.length], where),
    bias: shaped(tensors, "head.bias", [labels.length], where),
    transitions: transitions ? shaped(tensors, "head.transitions", [labels.length + 1, labels.length], where) : null,
    shapes: shapes ? shaped(tensors, "head.shapes", [SHAPES, labels.length], where) : null,
  };
  return { name, family, labels, units, head, lora: own ? lora : null, content, decisions, info };
}

/** Reads a primary adapter's file: the inputs of the branch graph. */
export function readPrimary(content: Uint8Array, manifest: Manifest, family: string): Tensors {
  const where = `adapter ${family}`;
  const { tensors, said } = opened(content, "adapter", where, manifest);
  if (said.family !== family) throw new TrunklineError(`${where} is of family ${said.family}`, family);
  const head = HEAD.find((name) => tensors.has(name));
  if (head) throw new TrunklineError(`${where} has ${head}`, "a primary adapter, which is LoRA alone");
  return fused(tensors, manifest, where);
}

/** The file of a task without LoRA, as `trunkline bundle add` takes it. */
export function taskBytes(
  manifest: Manifest,
  task: Pick<Task, "family" | "labels" | "units" | "head" | "decisions" | "info">,
): Uint8Array<ArrayBuffer> {
  const { family, labels, units, head, decisions, info } = task;
  const description: Description = {
    format: 2,
    kind: "task",
    family,
    backbone: manifest.backbone,
    fork: manifest.encoder.fork,
    labels,
    primary: primaryOf(family, manifest),
    alpha: 0,
    units,
    info,
    decisions,
  };
  const hidden = manifest.encoder.hidden_size;
  const cut = hidden * labels.length;
  const tensors: Tensors = new Map([
    ["head.weight", { dims: [hidden, labels.length], data: head.weight.slice(0, cut) }],
    ["head.bias", { dims: [labels.length], data: head.bias }],
  ]);
  if (head.weight.length > cut)
    tensors.set("head.shapes", { dims: [SHAPES, labels.length], data: head.weight.slice(cut) });
  if (head.transitions)
    tensors.set("head.transitions", { dims: [labels.length + 1, labels.length], data: head.transitions });
  return writeTensors(tensors, { trunkline: JSON.stringify(description) });
}

/** Inputs for the graph `branch-required`: rank 0 where an adapter has nothing. */
export function complete(lora: Tensors, manifest: Manifest): Tensors {
  const found: Tensors = new Map(lora);
  for (const [place, [inputs, outputs]] of loraShapes(manifest)) {
    if (found.has(`lora.${place}.a`)) continue;
    found.set(`lora.${place}.a`, { dims: [inputs, 0], data: new Float32Array(0) });
    found.set(`lora.${place}.b`, { dims: [0, outputs], data: new Float32Array(0) });
  }
  return found;
}

/** What a task without LoRA sits on: FAMILY@SHA256 of its branch's adapter, or nothing. */
function primaryOf(family: string, manifest: Manifest): string {
  const branch = branchOf(family);
  if (!Object.hasOwn(manifest.adapters, branch)) return "";
  return `${branch}@${manifest.files[manifest.adapters[branch]!]!.sha256}`;
}

function opened(content: Uint8Array, kind: "task" | "adapter", where: string, manifest: Manifest) {
  const { tensors, metadata } = readTensors(content, where);
  const text = metadata.get("trunkline");
  if (text === undefined) throw new TrunklineError(`${where} does not say what it is`, `a file of kind ${kind}`);
  const said = parseDescription(text, kind, where);
  if (said.backbone !== manifest.backbone) {
    throw new TrunklineError(
      `${where} was trained on backbone ${said.backbone.slice(0, 12)}`,
      `${manifest.backbone.slice(0, 12)}, the bundle's`,
      "Fit the task again on the backbone of this bundle",
    );
  }
  return { tensors, said };
}

function shaped(tensors: Tensors, name: string, dims: number[], where: string): Float32Array {
  const tensor = tensors.get(name);
  if (tensor && `${tensor.dims}` === `${dims}`) return tensor.data;
  throw new TrunklineError(`${where} has ${name} of shape [${tensor?.dims ?? "none"}]`, `[${dims}], for its labels`);
}

/** Query, key and value of a layer as one pair: `a` side by side, `b` block by block. */
function fused(tensors: Tensors, manifest: Manifest, where: string): Tensors {
  const pairs = loraPairs(tensors, where);
  const found: Tensors = new Map();
  for (const [place, [inputs, outputs]] of loraShapes(manifest)) {
    const [layer, target] = place.split(".") as [string, string];
    const targets = TARGETS[target]!;
    const present = targets.filter((name) => pairs.has(`${layer}.${name}`));
    if (!present.length) continue;
    const width = outputs / targets.length;
    const parts = present.map((name) => pairs.get(`${layer}.${name}`)!);
    for (const [number, { a, b }] of parts.entries()) {
      if (a.dims.length === 2 && a.dims[0] === inputs && `${b.dims}` === `${[a.dims[1], width]}`) continue;
      throw new TrunklineError(
        `${where}: lora.${layer}.${present[number]} has [${a.dims}] and [${b.dims}]`,
        `[${inputs}, rank] and [rank, ${width}]`,
      );
    }
    const rank = parts.reduce((sum, { a }) => sum + a.dims[1]!, 0);
    const a = new Float32Array(inputs * rank);
    const b = new Float32Array(rank * outputs);
    let begin = 0;
    for (const [number, part] of parts.entries()) {
      const own = part.a.dims[1]!;
      const column = targets.indexOf(present[number]!) * width;
      for (let n = 0; n < inputs; n++) a.set(part.a.data.subarray(n * own, (n + 1) * own), n * rank + begin);
      for (let n = 0; n < own; n++)
        b.set(part.b.data.subarray(n * width, (n + 1) * width), (begin + n) * outputs + column);
      begin += own;
    }
    present.forEach((name) => pairs.delete(`${layer}.${name}`));
    found.set(`lora.${place}.a`, { dims: [inputs, rank], data: a });
    found.set(`lora.${place}.b`, { dims: [rank, outputs], data: b });
  }
  const left = [...pairs.keys()][0];
  if (left) {
    const todo = "Export the bundle with a lower fork or with this LoRA target";
    throw new TrunklineError(
      `${where} has updates lora.${left}, for which the graph has no input`,
      "other layers",
      todo,
    );
  }
  return found;
}

function loraPairs(tensors: Tensors, where: string): Map<string, { a: Tensor; b: Tensor }> {
  const found = new Map<string, { a: Tensor; b: Tensor }>();
  for (const name of tensors.keys()) {
    if (HEAD.includes(name)) continue;
    const place = /^lora\.((?:0|[1-9][0-9]{0,3})\.[a-z]+)\.[ab]$/.exec(name)?.[1];
    const a = tensors.get(`lora.${place}.a`);
    const b = tensors.get(`lora.${place}.b`);
    if (!place || !a || !b)
      throw new TrunklineError(`${where} has the tensor ${name.slice(0, 60)}`, "pairs lora.LAYER.TARGET.a and .b");
    found.set(place, { a, b });
  }
  return found;
}
