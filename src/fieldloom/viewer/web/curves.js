// Curves of a run's training, one for each number of its log and stage.

import { drawing, make } from "./elements.js";

const WIDTH = 300, HEIGHT = 120, LEFT = 46, BOTTOM = 18, TOP = 6, RIGHT = 6;
const LEFT_OUT = new Set(["stage", "step", "seconds_a_step"]);
const LINEAR = /psnr|snr|ssim|accuracy|iou|rate/; // not on a logarithmic scale

// lines: of the log. Returns a figure for each curve.
export function drawCurves(lines) {
  return [...findCurves(lines)].map(([title, points]) => drawCurve(title, points));
}

// "stage: number" -> its [step, value]s.
export function findCurves(lines) {
  const found = new Map();
  for (const line of lines) {
    for (const [name, value] of Object.entries(line)) {
      if (LEFT_OUT.has(name) || typeof value !== "number" || !Number.isFinite(value)) continue;
      if (name === "objective" && value === line.loss) continue;
      const title = `${line.stage}: ${name}`;
      if (!found.has(title)) found.set(title, []);
      found.get(title).push([line.step, value]);
    }
  }
  return found;
}

function drawCurve(title, points) {
  const values = points.map(p => p[1]), steps = points.map(p => p[0]);
  const logarithmic = !LINEAR.test(title.split(": ")[1]) && Math.min(...values) > 0;
  const scale = logarithmic ? Math.log10 : x => x, back = logarithmic ? x => 10 ** x : x => x;
  const [low, high] = spread(scale(Math.min(...values)), scale(Math.max(...values)));
  const last = Math.max(...steps), first = Math.min(0, ...steps);
  const x = step => LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / Math.max(1, last - first);
  const y = value => TOP + (HEIGHT - TOP - BOTTOM) * (high - scale(value)) / (high - low);
  const lines = [high, (low + high) / 2, low].map(back).flatMap(value => [
    drawing("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "rule" }),
    drawing("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, short(value)),
  ]);
  const ends = [[first, "start"], [last, "end"]].map(([step, anchor]) =>
    drawing("text", { x: x(step), y: HEIGHT - 3, "text-anchor": anchor },
      step.toLocaleString("en")));
  const path = points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`);
  const now = short(values.at(-1));
  const picture = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `${title}: ${now} after ${last} steps` }, ...lines, ...ends,
  drawing("polyline", { points: path.join(" "), class: "curve" }),
  drawing("circle", { cx: x(steps.at(-1)), cy: y(values.at(-1)), r: 2.5, class: "now" }));
  return make("figure", { class: "curves" }, make("figcaption", {}, `${title} `,
    make("strong", {}, now), logarithmic ? " (log scale)" : ""), picture);
}

// Ends of an axis that hold both values, and are not one.
function spread(low, high) {
  const room = Math.max((high - low) * 0.05, Math.abs(high) * 1e-3, 1e-9);
  return [low - room, high + room];
}

function short(value) {
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e5) ? value.toExponential(1)
    : Number(value.toPrecision(3)).toString();
}
