export { check } from "./check.mjs";

/** The address of a bundle; called as a function, it reads a file of it. */
export function sourceOf(name) {
  const address = new URL(`/bundles/${name}/`, location.href);
  return async (file, limit) => {
    const response = await fetch(new URL(file, address));
    const content = new Uint8Array(await response.arrayBuffer());
    if (!response.ok || content.length > limit) throw new Error(`${file}: ${response.status}, ${content.length} bytes`);
    return content;
  };
}
