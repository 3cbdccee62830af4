/** onnxruntime-web, as far as it is used here: whoever has it under another name passes it in. */
import type * as Runtime from "onnxruntime-common";
import { TrunklineError, said } from "./errors.js";
import type { Tensor } from "./tensors.js";

export type Ort = Pick<typeof Runtime, "InferenceSession" | "Tensor" | "env">;
export type Feeds = Record<string, Runtime.Tensor>;

/** Where the runtime is from and how it runs. */
export interface RuntimeOptions {
  /** The module `onnxruntime-web/wasm`, where its name cannot be resolved, as in a worker without a bundler. */
  ort?: Ort;
  /** Folder of the runtime's `.wasm` and `.mjs` files, where a bundler has moved them. */
  wasmPaths?: string;
  /** More than one needs a page that is cross-origin isolated. */
  threads?: number;
}

export async function runtime(options: RuntimeOptions): Promise<Ort> {
  const ort = options.ort ?? ((await import("onnxruntime-web/wasm")) as unknown as Ort);
  if (options.wasmPaths !== undefined) ort.env.wasm.wasmPaths = options.wasmPaths;
  ort.env.wasm.numThreads = options.threads ?? 1;
  return ort;
}

/** A graph that computes one output at a time. */
export class Graph {
  private constructor(
    private readonly ort: Ort,
    private readonly session: Runtime.InferenceSession,
  ) {}

  static async open(ort: Ort, content: Uint8Array, where: string): Promise<Graph> {
    try {
      // The same level as in Python, where higher ones are slower.
      const session = await ort.InferenceSession.create(content, {
        executionProviders: ["wasm"],
        graphOptimizationLevel: "basic",
        logSeverityLevel: 3,
      });
      return new Graph(ort, session);
    } catch (error) {
      throw new TrunklineError(`onnxruntime-web cannot load ${where} (${said(error)})`, "a graph of this bundle");
    }
  }

  float32({ dims, data }: Tensor): Runtime.Tensor {
    return new this.ort.Tensor("float32", data, dims);
  }

  int64(data: ArrayLike<number>, dims: number[]): Runtime.Tensor {
    return new this.ort.Tensor("int64", BigInt64Array.from(data as number[], BigInt), dims);
  }

  async run(feeds: Feeds, output: string): Promise<Tensor> {
    let found: Runtime.Tensor;
    try {
      found = (await this.session.run(feeds, [output]))[output]!;
    } catch (error) {
      throw new TrunklineError(`onnxruntime-web cannot compute ${output} (${said(error)})`, "graphs of this bundle");
    }
    const data = found.data as Float32Array;
    for (let n = 0; n < data.length; n++) {
      if (Number.isFinite(data[n])) continue;
      throw new TrunklineError(`${output} has values that are not finite`, "finite weights", "Fetch the bundle again");
    }
    return { dims: [...found.dims], data };
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}
