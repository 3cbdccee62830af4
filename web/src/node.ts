/** Bundles in folders of this computer, for Node. */
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Reader } from "./bundle.js";
import { TrunklineError } from "./errors.js";

/** Reads a bundle's files out of a folder: `load(folder("support-bot"))`. */
export function folder(path: string): Reader {
  return async (file, limit) => {
    const handle = await open(join(path, file)).catch((error: Error) => {
      throw new TrunklineError(`${join(path, file)} cannot be read (${error.message})`, "a file of a bundle");
    });
    try {
      const { size } = await handle.stat();
      if (size > limit) throw new TrunklineError(`${file} has ${size} bytes`, `at most ${limit}`);
      return new Uint8Array(await handle.readFile());
    } finally {
      await handle.close();
    }
  };
}
