// Puts together the demo page that wheels carry: `demo/`, the package's modules, and the runtime with its WebAssembly.
import { cpSync, mkdirSync, readdirSync, rmSync } from "node:fs";

const web = new URL("../", import.meta.url);
const page = new URL("../src/trunkline/demo/page/", web);
const runtime = new URL("node_modules/onnxruntime-web/", web);

rmSync(page, { recursive: true, force: true });
mkdirSync(new URL("runtime/", page), { recursive: true });
cpSync(new URL("demo/", web), page, { recursive: true });
for (const file of readdirSync(new URL("dist/", web), { recursive: true })) {
  if (file.endsWith(".js") && file !== "node.js") cpSync(new URL(`dist/${file}`, web), new URL(`lib/${file}`, page));
}
for (const file of ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"]) {
  cpSync(new URL(`dist/${file}`, runtime), new URL(`runtime/${file}`, page));
}
cpSync(new URL("package.json", runtime), new URL("runtime/package.json", page));
