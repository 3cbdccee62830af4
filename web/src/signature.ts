/** Signatures of bundles: Ed25519 over the manifest's bytes, which name the SHA-256 of every other file. */
import { TrunklineError, said } from "./errors.js";

export const SIGNATURE = "signature.json";
export const MOST_SIGNATURE = 2 ** 16;

const TODO = "Fetch the bundle again, from somewhere you trust";

/** Throws unless a manifest was signed with the private half of `publicKey`, which has 64 hexadecimal digits. */
export async function checkSignature(
  manifest: Uint8Array<ArrayBuffer>,
  signature: Uint8Array<ArrayBuffer> | null,
  publicKey: string,
): Promise<void> {
  const raw = fromHex(publicKey.trim());
  if (raw?.length !== 32) throw new TrunklineError("the public key cannot be used", "64 hexadecimal digits of Ed25519");
  if (!signature) throw new TrunklineError("the bundle is not signed", `${SIGNATURE} beside the manifest`, TODO);
  const signed = signatureOf(signature);
  let good: boolean;
  try {
    const key = await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]);
    good = await crypto.subtle.verify("Ed25519", key, signed, manifest);
  } catch (error) {
    throw new TrunklineError(
      `the signature cannot be checked here (${said(error)})`,
      "a browser with Ed25519, by https or from localhost",
    );
  }
  if (good) return;
  const expected = "a bundle signed by the owner of the key, and not changed since";
  throw new TrunklineError("the signature is not that of this manifest under the key given", expected, TODO);
}

function signatureOf(content: Uint8Array): Uint8Array<ArrayBuffer> {
  let record: unknown;
  try {
    record = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch {
    record = null;
  }
  const { algorithm, signature } = (record ?? {}) as Record<string, unknown>;
  const found = algorithm === "ed25519" && typeof signature === "string" ? fromHex(signature) : null;
  if (found) return found;
  throw new TrunklineError(`${SIGNATURE} is no signature`, "ed25519", TODO);
}

function fromHex(text: string): Uint8Array<ArrayBuffer> | null {
  if (!/^([0-9a-f]{2})+$/i.test(text)) return null;
  return Uint8Array.from(text.match(/../g)!, (byte) => parseInt(byte, 16));
}
