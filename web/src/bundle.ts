/** A bundle's files, from an address or from memory, each checked against the manifest before it is used. */
import { TrunklineError, said } from "./errors.js";
import { MANIFEST, MOST_MANIFEST, type Manifest, TOKENIZER, limitOf, parseManifest } from "./manifest.js";
import { required } from "./onnx.js";
import { MOST_SIGNATURE, SIGNATURE, checkSignature } from "./signature.js";
import { type Task, readPrimary, readTask } from "./task.js";
import type { Tensors } from "./tensors.js";

/** Reads a file of a bundle by its name; `limit` is the most bytes that are wanted. */
export type Reader = (file: string, limit: number) => Promise<Uint8Array<ArrayBuffer>>;

/** The address of a bundle's folder, its files by name, a folder that was dropped or chosen, or a reader. */
export type Source = string | URL | Record<string, Uint8Array | Blob> | Iterable<File> | Reader;

export interface Bundle {
  manifest: Manifest;
  tokenizer: Uint8Array;
  trunk: Uint8Array;
  branch: Uint8Array;
  primaries: Map<string, Tensors>;
  tasks: Task[];
}

const REQUIRED = "branch-required";

/**
 * Reads a bundle; with `verify`, the SHA-256 of every file is compared with the manifest's, sizes always are.
 *
 * With `publicKey`, the manifest must be signed by the owner of that key.
 */
export async function openBundle(source: Source, verify = true, publicKey?: string): Promise<Bundle> {
  const read = readerOf(source);
  const content = await read(MANIFEST, MOST_MANIFEST);
  if (publicKey !== undefined) {
    const signature = await read(SIGNATURE, MOST_SIGNATURE).catch(() => null);
    await checkSignature(content, signature, publicKey);
  }
  const manifest = parseManifest(content);
  const { trunk, [REQUIRED]: own } = manifest.graphs;
  const branch = own ?? manifest.graphs.branch;
  if (!trunk || !branch) {
    throw new TrunklineError(
      `the bundle ${manifest.name} has no graphs`,
      "one with the graphs trunk and branch",
      "`trunkline export BUNDLE --out DIR` makes one",
    );
  }
  if (verify && !globalThis.crypto?.subtle) {
    throw new TrunklineError(
      "SHA-256 is not there",
      "a page served by https or from localhost",
      "Or pass verify: false",
    );
  }
  const file = (name: string): Promise<Uint8Array<ArrayBuffer>> => checked(read, name, manifest, verify);
  const adapters = Object.entries(manifest.adapters);
  const tasks = Object.entries(manifest.tasks);
  const [tokens, below, above, families, files] = await Promise.all([
    file(TOKENIZER),
    file(trunk),
    file(branch),
    Promise.all(adapters.map(([, name]) => file(name))),
    Promise.all(tasks.map(([, task]) => file(task.file))),
  ]);
  return {
    manifest,
    tokenizer: tokens,
    trunk: below,
    branch: own ? above : required(above),
    primaries: new Map(adapters.map(([family], n) => [family, readPrimary(families[n]!, manifest, family)])),
    tasks: tasks.map(([name], n) => readTask(files[n]!, manifest, name)),
  };
}

async function checked(read: Reader, file: string, manifest: Manifest, verify: boolean) {
  const { sha256, bytes } = manifest.files[file]!;
  const limit = limitOf(file, manifest);
  if (bytes > limit) throw new TrunklineError(`${file} has ${bytes} bytes`, `at most ${limit}`);
  const content = await read(file, bytes);
  const todo = "Fetch or export the bundle again";
  if (content.length !== bytes) {
    throw new TrunklineError(`${file} has ${content.length} bytes`, `${bytes}, as the manifest says`, todo);
  }
  if (verify && (await sha256Of(content)) !== sha256) {
    throw new TrunklineError(`${file} has another SHA-256 than the manifest says`, "an unchanged file", todo);
  }
  return content;
}

async function sha256Of(content: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function readerOf(source: Source): Reader {
  if (typeof source === "function") return source;
  if (typeof source === "string" || source instanceof URL) {
    const folder = new URL(source, globalThis.location?.href);
    if (!folder.pathname.endsWith("/")) folder.pathname += "/";
    return (file, limit) => fetched(new URL(file, folder), file, limit);
  }
  const files = Symbol.iterator in source ? byPath(source) : new Map(Object.entries(source));
  return async (file, limit) => {
    const found = files.get(file);
    if (found === undefined)
      throw new TrunklineError(`${file} is not among the files`, "all files of the bundle's folder");
    const size = found instanceof Uint8Array ? found.length : found.size;
    if (size > limit) throw new TrunklineError(`${file} has ${size} bytes`, `at most ${limit}`);
    return new Uint8Array(found instanceof Uint8Array ? found : await found.arrayBuffer());
  };
}

/** Files of a folder by their paths in it: the folder itself is that of the manifest. */
function byPath(files: Iterable<File>): Map<string, Blob> {
  const found = Array.from(files, (file) => [file.webkitRelativePath || file.name, file] as const);
  const manifest = found.map(([path]) => path).find((path) => path === MANIFEST || path.endsWith(`/${MANIFEST}`));
  const folder = (manifest ?? "").slice(0, -MANIFEST.length);
  return new Map(
    found.filter(([path]) => path.startsWith(folder)).map(([path, file]) => [path.slice(folder.length), file]),
  );
}

async function fetched(url: URL, file: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new TrunklineError(`${url} cannot be fetched (${said(error)})`, "the folder of a bundle");
  }
  if (!response.ok || !response.body) {
    throw new TrunklineError(`${url} answers ${response.status}`, "the folder of a bundle");
  }
  // What is longer than it may be is not read to its end.
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    size += part.value.length;
    if (size > limit) {
      await reader.cancel();
      throw new TrunklineError(`${file} has more than ${limit} bytes`, "the file that the manifest names");
    }
    parts.push(part.value);
  }
  const content = new Uint8Array(size);
  let place = 0;
  for (const part of parts) {
    content.set(part, place);
    place += part.length;
  }
  return content;
}
