// Runs what /work.json lists and posts the outputs, or the first error, to /result.
import * as ort from "../../web/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };

function decode({ type, dims, data }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims);
}

function encode({ type, dims, data }) {
  let text = "";
  for (const byte of new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) {
    text += String.fromCharCode(byte);
  }
  return { type, dims, data: btoa(text) };
}

async function run() {
  ort.env.wasm.numThreads = 1;
  const work = await (await fetch("/work.json")).json();
  const sessions = {};
  for (const name of work.graphs) {
    const model = new Uint8Array(await (await fetch(`/graphs/${name}.onnx`)).arrayBuffer());
    // The same level as in Python, see engine/onnx.py.
    sessions[name] = await ort.InferenceSession.create(model, { graphOptimizationLevel: "basic" });
  }
  const results = {};
  for (const { name, graph, inputs } of work.runs) {
    const given = Object.fromEntries(Object.entries(inputs).map(([key, value]) => [key, decode(value)]));
    const outputs = await sessions[graph].run(given);
    results[name] = Object.fromEntries(Object.entries(outputs).map(([key, value]) => [key, encode(value)]));
  }
  return { results };
}

const answer = await run().catch((error) => ({ error: String(error.stack ?? error) }));
await fetch("/result", { method: "POST", body: JSON.stringify(answer) });
