// Import maps do not reach workers, so the runtime is passed in.
import * as ort from "../../web/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { check } from "./check.mjs";

onmessage = async ({ data }) => {
  const open = (name) => new URL(`/bundles/${name}`, location.href);
  postMessage(await check(data, open, { ort }));
};
