/** The one door: load a bundle, predict, learn tasks from few labels, evaluate, add, remove and export them. */
import { type Bundle, type Source, openBundle } from "./bundle.js";
import { type Asked, deciders } from "./decisions.js";
import { type Branch, Engine, type Spent } from "./engine.js";
import { TrunklineError, short } from "./errors.js";
import { type Evaluation, evaluation } from "./evaluate.js";
import { type Gold, type Prediction, type Scored, type Scores, familyOf, learnable } from "./families.js";
import { type Fitted, fitHead } from "./fit.js";
import type { Example } from "./folds.js";
import { checkGold, familyOfGold } from "./gold.js";
import { branchOf, checkName } from "./manifest.js";
import { Graph, type RuntimeOptions, runtime } from "./ort.js";
import { type Task, complete, readTask, taskBytes } from "./task.js";
import type { Tensors } from "./tensors.js";
import { WordPiece } from "./tokenizer.js";
import { type ReadText, type UnitKind, bordersOf, readText } from "./units.js";
import { SHAPES, unitShapes } from "./words.js";

export interface LoadOptions extends RuntimeOptions {
  /** Whether the SHA-256 of every file is compared with the manifest's; by default it is, and sizes always are. */
  verify?: boolean;
  /** An Ed25519 key, 64 hexadecimal digits, by whose owner the bundle must be signed. */
  publicKey?: string;
}

/** What was fetched, in bytes. */
export interface Sizes {
  trunk: number;
  branch: number;
  /** Tokenizer and primary adapters. */
  others: number;
  /** Task -> its file. */
  tasks: Record<string, number>;
}

export interface FitOptions {
  /** `ner`, `classification` or `multilabel`, where the labels do not tell, as where all are empty. */
  family?: string;
  /** Whether a task of this name may be there already. */
  replace?: boolean;
  /** Of the folds. */
  seed?: number;
}

/** What fitting a task gave. */
export interface FitReport {
  task: string;
  family: string;
  labels: string[];
  examples: number;
  /** Scores of predictions on held-out folds. */
  scores: Scores;
  /** Mean log loss on held-out folds, in nats; null where no unit can be judged. */
  logLoss: number | null;
  penalty: number;
  temperature: number;
  discriminant: number;
  /** For each example what was predicted when it was held out. */
  heldOut: Prediction[];
  /** Bytes of the task's file. */
  bytes: number;
  milliseconds: number;
}

/** Tasks that share a pass above the fork. */
interface Group {
  family: string;
  units: UnitKind;
  tasks: Task[];
  inputs: Tensors;
}

/** Texts that go through the graphs in one call; bounds the memory. */
const CHUNK = 256;

/** Opens a bundle with graphs. */
export async function load(source: Source, options: LoadOptions = {}): Promise<Model> {
  const bundle = await openBundle(source, options.verify ?? true, options.publicKey);
  const tokenizer = new WordPiece(bundle.tokenizer);
  const { encoder } = bundle.manifest;
  if (tokenizer.size > encoder.vocabulary_size) {
    throw new TrunklineError(
      `tokenizer.json has ${tokenizer.size} tokens`,
      `at most ${encoder.vocabulary_size}, the encoder's`,
    );
  }
  const ort = await runtime(options);
  const trunk = await Graph.open(ort, bundle.trunk, "trunk");
  const branch = await Graph.open(ort, bundle.branch, "branch-required");
  return new Model(bundle, tokenizer, new Engine(trunk, branch, encoder.pad_id));
}

export class Model {
  private readonly known = new Map<string, Task>();
  private groups = new Map<string, Group[]>();

  constructor(
    private readonly bundle: Bundle,
    private readonly tokenizer: WordPiece,
    private readonly engine: Engine,
  ) {
    for (const task of bundle.tasks) this.put(task);
  }

  /** The bundle's name. */
  get name(): string {
    return this.bundle.manifest.name;
  }

  /** Of the weights that compute: `float32`, `int8` or `int4`. */
  get precision(): string {
    return this.bundle.manifest.weights.kind;
  }

  /** What was fetched, in bytes. */
  get sizes(): Sizes {
    const { manifest, trunk, branch, tokenizer } = this.bundle;
    const adapters = Object.values(manifest.adapters).map((file) => manifest.files[file]!.bytes);
    return {
      trunk: trunk.length,
      branch: branch.length,
      others: adapters.reduce((sum, bytes) => sum + bytes, tokenizer.length),
      tasks: Object.fromEntries(Array.from(this.known, ([name, task]) => [name, task.content.length])),
    };
  }

  /** What the graphs took since the model was loaded, in milliseconds, and how often a branch ran. */
  get spent(): Spent {
    return { ...this.engine.spent };
  }

  /** The tasks, name -> family. */
  get tasks(): Record<string, string> {
    return Object.fromEntries(Array.from(this.known, ([name, task]) => [name, task.family]));
  }

  /** The labels of a task as a user knows them: entity types for NER. */
  labels(name: string): string[] {
    const { family, labels } = this.task(name);
    return family === "ner"
      ? [...new Set(labels.filter((label) => label !== "O").map((label) => label.slice(2)))]
      : [...labels];
  }

  /** Runs tasks, all by default, on texts; gives for each text what each task says of it. */
  async predict(
    texts: readonly string[],
    options: { tasks?: readonly string[] } & Asked = {},
  ): Promise<Record<string, Prediction>[]> {
    if (!Array.isArray(texts)) throw new TrunklineError(`texts are ${short(texts)}`, "a list of texts");
    const names = options.tasks ?? [...this.known.keys()];
    const tasks = names.map((name) => this.task(name));
    if (!this.known.size)
      throw new TrunklineError(`${this.name} has no tasks yet`, "", "Add one with fit(name, texts, labels)");
    const decide = deciders(tasks, options);
    const found: Record<string, Prediction>[] = [];
    for (let begin = 0; begin < texts.length; begin += CHUNK) {
      const read = texts.slice(begin, begin + CHUNK).map((text) => this.read(text));
      const said = await this.run(read, names);
      found.push(...read.map((_, n) => Object.fromEntries(names.map((name) => [name, decide.get(name)!(said.get(name)![n]!)]))));
    }
    return found;
  }

  /**
   * Learns a task from labelled texts and adds it: for each text a label, a list of labels, or a list of spans.
   *
   * Settings are chosen by cross-validation within the labels, and the task is then fitted on all of them.
   */
  async fit(
    name: string,
    texts: readonly string[],
    labels: readonly Gold[],
    options: FitOptions = {},
  ): Promise<FitReport> {
    const began = performance.now();
    this.checkNew(name, options.replace);
    const familyName = options.family ?? familyOfGold(labels);
    const family = learnable(familyName);
    checkGold(familyName, texts, labels, true);
    const read = texts.map((text) => this.read(text));
    const outputs = family.labels(labels);
    const units = family.chooseUnits(read, labels);
    const borders = read.map((text) => bordersOf(text, units));
    const hidden = this.bundle.manifest.encoder.hidden_size;
    const width = hidden + (family.shapes ? SHAPES : 0);
    const inputs = this.inputs([], this.bundle.primaries.get(branchOf(familyName)));
    const features = await this.features(read, familyName, units, inputs);
    const examples: Example[] = read.map((text, n) => ({
      read: text,
      borders: borders[n]!,
      gold: labels[n]!,
      features: family.shapes
        ? beside(features[n]!, family.shapes(text, borders[n]!), borders[n]!.length)
        : features[n]!,
      targets: family.targets(text, labels[n]!, outputs, borders[n]!),
    }));
    const fitted = fitHead(family, examples, outputs, width, options.seed ?? 0);
    const info = {
      mode: "head",
      examples: texts.length,
      cross_validation: record(fitted),
      engine: "onnxruntime-web",
      precision: this.precision,
    };
    const content = taskBytes(this.bundle.manifest, {
      family: familyName,
      labels: outputs,
      units,
      head: fitted.head,
      decisions: { held_out: fitted.evidence, ...(fitted.thresholds && { thresholds: fitted.thresholds }) },
      info,
    });
    this.put(readTask(content, this.unnamed, name));
    const { head: _head, evidence: _evidence, thresholds: _thresholds, ...chosen } = fitted;
    return {
      task: name,
      family: familyName,
      labels: this.labels(name),
      examples: texts.length,
      ...chosen,
      bytes: content.length,
      milliseconds: performance.now() - began,
    };
  }

  /** Scores a task on labelled texts; these are given as for `fit`. */
  async evaluate(name: string, texts: readonly string[], labels: readonly Gold[]): Promise<Evaluation> {
    const { family } = this.task(name);
    const kind = learnable(family);
    checkGold(family, texts, labels, false);
    const predicted = (await this.predict(texts, { tasks: [name] })).map((row) => row[name]!);
    return evaluation({ name, family, types: this.labels(name) }, kind, texts, labels, predicted);
  }

  /** Adds a task from its file. */
  add(name: string, content: Uint8Array, options: { replace?: boolean } = {}): void {
    this.checkNew(name, options.replace);
    this.put(readTask(new Uint8Array(content), this.unnamed, name));
  }

  /** Removes a task. */
  remove(name: string): void {
    this.task(name);
    this.known.delete(name);
    this.groups.clear();
  }

  /** A task's file, as `trunkline bundle add` and `add` take it. */
  taskFile(name: string): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.task(name).content);
  }

  /** Gives the graphs' memory back; the model cannot predict any more. */
  close(): Promise<void> {
    return this.engine.close();
  }

  private get unnamed() {
    return { ...this.bundle.manifest, tasks: {} };
  }

  private task(name: string): Task {
    const found = this.known.get(name);
    if (found) return found;
    throw new TrunklineError(
      `there is no task ${short(name)}`,
      `one of ${[...this.known.keys()].join(", ") || "(none)"}`,
    );
  }

  private put(task: Task): void {
    familyOf(task.family).checkLabels(task.labels, `task ${task.name}`);
    this.known.set(task.name, task);
    this.groups.clear();
  }

  private checkNew(name: string, replace = false): void {
    checkName(name);
    if (!this.known.has(name) || replace) return;
    throw new TrunklineError(`there is a task ${name} already`, "", "Pass replace: true, or take another name");
  }

  private read(text: string): ReadText {
    const { max_length, overlap } = this.bundle.manifest.encoder;
    return readText(text, this.tokenizer, max_length, overlap);
  }

  private async features(read: ReadText[], family: string, units: UnitKind, inputs: Tensors): Promise<Float32Array[]> {
    const found: Float32Array[] = [];
    for (let begin = 0; begin < read.length; begin += CHUNK) {
      const own = read.slice(begin, begin + CHUNK).map((text) => familyOf(family).units(text, bordersOf(text, units)));
      const [rows] = await this.engine.run([{ inputs, output: "features", units: own }]);
      found.push(...rows!.map(({ data }) => data));
    }
    return found;
  }

  /** The predictions of each task, text by text. */
  private async run(read: ReadText[], names: readonly string[]): Promise<Map<string, Prediction[]>> {
    const found = new Map<string, Prediction[]>();
    const groups = this.grouped(names);
    for (const own of [false, true]) {
      const chosen = groups.filter(({ family }) => familyOf(family).ownWindows === own);
      if (!chosen.length) continue;
      const borders = chosen.map(({ units }) => read.map((text) => bordersOf(text, units)));
      const branches = chosen.map(({ family, inputs }, group): Branch => ({
        inputs,
        output: "logits",
        units: read.map((text, n) => familyOf(family).units(text, borders[group]![n]!)),
      }));
      const said = await this.engine.run(branches);
      chosen.forEach(({ tasks }, group) => {
        let column = 0;
        for (const { name, family: kind, labels, head, decisions } of tasks) {
          const rows = said[group]!.map(({ data, count, width }, n): Scored => {
            const logits = new Float32Array(count * labels.length);
            const shapes = head.shapes ? unitShapes(read[n]!.text, borders[group]![n]!) : null;
            for (let at = 0; at < logits.length; at++) {
              const label = at % labels.length;
              logits[at] = data[Math.floor(at / labels.length) * width + column + label]! + head.bias[label]!;
              if (!shapes) continue;
              const unit = SHAPES * Math.floor(at / labels.length);
              for (let k = 0; k < SHAPES; k++) {
                if (shapes[unit + k]) logits[at]! += head.shapes![k * labels.length + label]!;
              }
            }
            const probabilities = familyOf(kind).probabilities(logits, labels.length);
            return {
              probabilities,
              read: read[n]!,
              borders: borders[group]![n]!,
              labels,
              transitions: head.transitions,
              decisions,
            };
          });
          found.set(
            name,
            rows.map((row) => familyOf(kind).decode(row)),
          );
          column += labels.length;
        }
      });
    }
    return found;
  }

  /** The branches of tasks, each with all of the tasks that share it. */
  private grouped(names: readonly string[]): Group[] {
    const key = JSON.stringify(names);
    const known = this.groups.get(key);
    if (known) return known;
    const found = new Map<string, Task[]>();
    for (const name of [...new Set(names)].sort()) {
      const task = this.task(name);
      const adapter = JSON.stringify([task.lora ? name : null, branchOf(task.family), task.units]);
      found.set(adapter, [...(found.get(adapter) ?? []), task]);
    }
    const groups = Array.from(found.values(), (tasks): Group => {
      const { units, lora } = tasks[0]!;
      const family = branchOf(tasks[0]!.family);
      return { family, units, tasks, inputs: this.inputs(tasks, lora ?? this.bundle.primaries.get(family)) };
    });
    this.groups.set(key, groups);
    return groups;
  }

  /** Inputs of the branch graph: an adapter, and the heads of tasks side by side; biases are added in the end. */
  private inputs(tasks: readonly Task[], lora: Tensors = new Map()): Tensors {
    const found = complete(lora, this.bundle.manifest);
    const hidden = this.bundle.manifest.encoder.hidden_size;
    const width = tasks.reduce((sum, { labels }) => sum + labels.length, 0);
    const weight = new Float32Array(hidden * width);
    let column = 0;
    for (const { labels, head } of tasks) {
      for (let row = 0; row < hidden; row++) {
        weight.set(head.weight.subarray(row * labels.length, (row + 1) * labels.length), row * width + column);
      }
      column += labels.length;
    }
    found.set("head.weight", { dims: [hidden, width], data: weight });
    found.set("head.bias", { dims: [width], data: new Float32Array(width) });
    return found;
  }
}

/** Rows of two matrices side by side. */
function beside(left: Float32Array, right: Float32Array, rows: number): Float32Array {
  const [a, b] = [left.length / rows, right.length / rows];
  const found = new Float32Array(left.length + right.length);
  for (let n = 0; n < rows; n++) {
    found.set(left.subarray(n * a, (n + 1) * a), n * (a + b));
    found.set(right.subarray(n * b, (n + 1) * b), n * (a + b) + a);
  }
  return found;
}

/** How a head was chosen, as task files say it. */
function record({ penalty, temperature, discriminant, logLoss, scores }: Fitted): Record<string, unknown> {
  return { penalty, temperature, discriminant, log_loss: logLoss, scores };
}
