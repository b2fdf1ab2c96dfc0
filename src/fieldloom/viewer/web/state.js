// What is shown, kept in the address, so that a reload or a second tab shows the same.
//
// run: its id. beside: ids of runs that are compared with it. from: "samples" or "data". seed,
// count, label, guidance: of samples. part, index: of data. sets: how many times `count` tiles are
// shown. chosen: the place of the chosen tile; other: of the second one, and at, from 0 to 1, what
// lies between them. mean: whether sliders begin at the mean of all codes. along: their amounts.

const START = { run: "0", beside: [], from: "samples", seed: 0, count: 12, sets: 1, label: "",
  guidance: null, part: "test", index: 0, chosen: 0, other: null, at: 0.5, mean: false,
  along: [] };

const READ = {
  beside: text => text.split(",").filter(x => x),
  along: text => text.split(",").map(Number).filter(Number.isFinite),
  mean: text => text === "1",
  label: text => text,
  run: text => text,
  from: text => text === "data" ? "data" : "samples",
  part: text => text === "train" ? "train" : "test",
};

const LIMITS = { count: [1, 64], sets: [1, 16], at: [0, 1], seed: [0, 2 ** 31 - 1] };

function readNumber(text, name) {
  const found = Number(text), [low, high] = LIMITS[name] || [0, 1e9];
  return Number.isFinite(found) ? Math.min(high, Math.max(low, found)) : START[name];
}

export function readState(hash) {
  const found = { ...START };
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/, "")))
    if (name in START && text !== "") found[name] = (READ[name] || readNumber)(text, name);
  return found;
}

export function writeState(state) {
  const found = new URLSearchParams();
  for (const [name, start] of Object.entries(START)) {
    const text = value => value === true ? "1" : value === null ? "" : String(value);
    if (text(state[name]) !== text(start)) found.set(name, text(state[name]));
  }
  return `#${found}`.replaceAll("%2C", ",");
}

// What follows of a state when another run is chosen: nothing is known of its tiles.
export function forRun(state, run) {
  return { ...START, run, seed: state.seed, count: state.count, from: state.from };
}
