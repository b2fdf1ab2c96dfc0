// Codes: made by the server, and known here by their names there.

import { getNumbers, post } from "./server.js";

const MOST = 64; // codes that the server makes at a time
const KEPT = 1 << 26; // bytes of numbers that are kept

// The codes of a body of /codes: [{ run, id, name, datum }].
export async function makeCodes(run, body, signal) {
  const { codes } = await post(`/api/runs/${run.id}/codes`, body, signal);
  return codes.map(code => ({ ...code, run }));
}

export async function makeCode(run, body, signal) {
  return (await makeCodes(run, body, signal))[0];
}

// The bodies of what a gallery shows, one for each set of tiles.
export function listBodies(state) {
  const count = Math.min(MOST, state.count);
  return Array.from({ length: state.sets }, (_, i) => state.from === "data"
    ? { how: "data", part: state.part, index: state.index + i * count, count }
    : { how: "sample", seed: state.seed + i, count, label: state.label || null,
      guidance: state.guidance });
}

const kept = new Map(); // address -> numbers, the newest last

// The numbers of a code's function: Float32Array.
export async function readNumbersOf(code, signal) {
  const address = addressOf(code, "numbers"), key = `${address} ${code.run.version}`;
  const found = kept.get(key) || await getNumbers(address, signal);
  kept.delete(key);
  kept.set(key, found);
  let bytes = [...kept.values()].reduce((sum, x) => sum + x.byteLength, 0);
  for (const [old, numbers] of kept) {
    if (bytes <= KEPT || old === key) break;
    kept.delete(old);
    bytes -= numbers.byteLength;
  }
  return found;
}

export function forgetNumbers() {
  kept.clear();
}

export function addressOf(code, what) {
  return `/api/runs/${code.run.id}/codes/${encodeURIComponent(code.id)}/${what}`;
}

export function addressOfDatum(run, { part, index }, size) {
  return `/api/runs/${run.id}/data/${part}/${index}/image?size=${size}`;
}
