/** Texts through the trunk once, then through a branch for each adapter. As in `trunkline.engine.onnx`. */
import { type Feeds, Graph } from "./ort.js";
import type { Tensor, Tensors } from "./tensors.js";
import { type UnitText, firstIndex } from "./units.js";

/** What one branch says of a text: [units, labels] or [units, hidden]. */
export interface Rows {
  count: number;
  width: number;
  data: Float32Array;
}

/** One pass above the fork: an adapter and the heads of all tasks that share it, as inputs of the graph. */
export interface Branch {
  inputs: Tensors;
  output: "logits" | "features";
  /** For each text its units. */
  units: UnitText[];
}

/** Milliseconds in the trunk and in branches, and runs of branches. */
export interface Spent {
  trunk: number;
  branches: number;
  runs: number;
}

/** Most tokens of a batch, padding counted. */
const BUDGET = 1024;
/** The longest row of a batch is longer than the shortest by at most an eighth, and two tokens. */
const SLACK = 8;

interface Row {
  text: number;
  window: number;
  ids: number[];
}

export class Engine {
  readonly spent: Spent = { trunk: 0, branches: 0, runs: 0 };
  private readonly fed = new WeakMap<Tensors, Feeds>();

  constructor(
    private readonly trunk: Graph,
    private readonly branch: Graph,
    private readonly padId: number,
  ) {}

  /** For each branch, what it says of each text; all branches have the same windows. */
  async run(branches: readonly Branch[]): Promise<Rows[][]> {
    const pools = branches.map((branch) => branch.units.map((units) => new Pooling(units)));
    const found = branches.map((): Rows[] => []);
    const rows = (branches[0]?.units ?? []).flatMap(rowsOf);
    for (const batch of batches(rows)) {
      const width = Math.max(...batch.map((row) => row.ids.length));
      const { ids, mask } = padded(batch, width, this.padId);
      const shape = [batch.length, width];
      const feeds = { ids: this.trunk.int64(ids, shape), mask: this.trunk.float32({ dims: shape, data: mask }) };
      const began = performance.now();
      const hidden = await this.trunk.run(feeds, "hidden");
      const forked = performance.now();
      this.spent.trunk += forked - began;
      for (const [number, branch] of branches.entries()) {
        const chosen = batch.map((row) => ({ row, pool: pools[number]![row.text]! }));
        const most = Math.max(...chosen.map(({ row, pool }) => pool.rows[row.window]!.length));
        if (most === 0) continue;
        const said = await this.through(branch, hidden, mask, poolOf(chosen, most, width));
        chosen.forEach(({ row, pool }, place) => add(found[number]!, row, pool, said, place, most));
        this.spent.runs++;
      }
      this.spent.branches += performance.now() - forked;
    }
    return found.map((own, number) => pools[number]!.map((pool, text) => pool.spread(own[text])));
  }

  async close(): Promise<void> {
    await Promise.all([this.trunk.close(), this.branch.close()]);
  }

  private through({ inputs, output }: Branch, hidden: Tensor, mask: Float32Array, pool: Tensor): Promise<Tensor> {
    let fed = this.fed.get(inputs);
    if (fed === undefined) {
      fed = Object.fromEntries(Array.from(inputs, ([name, tensor]) => [name, this.branch.float32(tensor)]));
      this.fed.set(inputs, fed);
    }
    const states = {
      hidden: this.branch.float32(hidden),
      mask: this.branch.float32({ dims: hidden.dims.slice(0, 2), data: mask }),
      pool: this.branch.float32(pool),
    };
    return this.branch.run({ ...states, ...fed }, output);
  }
}

function rowsOf({ ids, sizes }: UnitText, text: number): Row[] {
  let begin = 0;
  return sizes.map((size, window) => ({ text, window, ids: ids.slice(begin, (begin += size)) }));
}

/** Rows of similar length together, so that little is computed for padding. */
function batches(rows: readonly Row[]): Row[][] {
  const found: Row[][] = [];
  let batch: Row[] = [];
  for (const row of [...rows].sort((one, other) => one.ids.length - other.ids.length)) {
    const length = row.ids.length;
    const least = batch[0]?.ids.length ?? length;
    if (batch.length && ((batch.length + 1) * length > BUDGET || length > least + Math.floor(least / SLACK) + 2)) {
      found.push(batch);
      batch = [];
    }
    batch.push(row);
  }
  return batch.length ? [...found, batch] : found;
}

function padded(rows: readonly Row[], width: number, padId: number): { ids: number[]; mask: Float32Array } {
  const ids = new Array<number>(rows.length * width).fill(padId);
  const mask = new Float32Array(ids.length);
  rows.forEach((row, number) => {
    row.ids.forEach((id, place) => (ids[number * width + place] = id));
    mask.fill(1, number * width, number * width + row.ids.length);
  });
  return { ids, mask };
}

function poolOf(chosen: { row: Row; pool: Pooling }[], most: number, width: number): Tensor {
  const data = new Float32Array(chosen.length * most * width);
  chosen.forEach(({ row, pool }, number) => pool.fill(data, row.window, number * most, width));
  return { dims: [chosen.length, most, width], data };
}

/** Adds what one window says of its units to its text's. */
function add(found: Rows[], { text, window }: Row, pool: Pooling, said: Tensor, place: number, most: number): void {
  const width = said.dims[2]!;
  found[text] ??= { count: pool.count, width, data: new Float32Array(pool.count * width) };
  const { data } = found[text];
  pool.rows[window]!.forEach((row, own) => {
    const begin = (place * most + own) * width;
    for (let n = 0; n < width; n++) data[row * width + n]! += said.data[begin + n]!;
  });
}

interface Place {
  row: number;
  token: number;
  share: number;
}

/**
 * Which shares of which tokens make up the units of a text, window by window; parts from several windows add up.
 *
 * Units that are made of the same single token are computed once, so that a text of symbols that the tokenizer drops,
 * all of which stand for the opening token, costs no more than another.
 */
class Pooling {
  /** Rows to compute for the text. */
  count: number;
  /** For each window the rows that it has a part in. */
  rows: number[][] = [];
  private readonly places: Place[][] = [];
  private readonly rowOf: number[];

  constructor({ token, unit, count, sizes }: UnitText) {
    const parts = new Array<number>(count).fill(0);
    for (const one of unit) parts[one]!++;
    const first = new Map<number, number>();
    const kept: number[] = [];
    this.rowOf = new Array<number>(count).fill(-1);
    const pairs: Place[] = [];
    unit.forEach((one, pair) => {
      const single = parts[one] === 1;
      const known = single ? first.get(token[pair]!) : undefined;
      if (known !== undefined) this.rowOf[one] = known;
      else {
        if (this.rowOf[one]! < 0) this.rowOf[one] = kept.push(one) - 1;
        if (single) first.set(token[pair]!, this.rowOf[one]!);
        pairs.push({ row: this.rowOf[one]!, token: token[pair]!, share: Math.fround(1 / parts[one]!) });
      }
    });
    this.count = kept.length;
    let end = 0;
    const ends = sizes.map((size) => (end += size));
    const windows = sizes.map((): Place[] => []);
    for (const pair of pairs) windows[firstIndex(ends.length - 1, (number) => pair.token < ends[number]!)]!.push(pair);
    windows.forEach((own, window) => {
      const rows = [...new Set(own.map((pair) => pair.row))];
      const number = new Map(rows.map((row, place) => [row, place]));
      const begin = ends[window]! - sizes[window]!;
      this.rows.push(rows);
      this.places.push(own.map(({ row, token: at, share }) => ({ row: number.get(row)!, token: at - begin, share })));
    });
  }

  /** Writes the shares of a window's tokens into zeros from row `first` on. */
  fill(pool: Float32Array, window: number, first: number, width: number): void {
    for (const { row, token, share } of this.places[window]!) pool[(first + row) * width + token] = share;
  }

  /** What was computed, for every unit. */
  spread({ width, data }: Rows = { count: 0, width: 0, data: new Float32Array(0) }): Rows {
    const found = new Float32Array(this.rowOf.length * width);
    this.rowOf.forEach((row, unit) => found.set(data.subarray(row * width, (row + 1) * width), unit * width));
    return { count: this.rowOf.length, width, data: found };
  }
}
