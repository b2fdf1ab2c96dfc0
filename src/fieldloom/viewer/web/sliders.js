// Sliders along the principal directions of a run's codes.

import { labelled, make, say, wait } from "./elements.js";
import { getJson, isOver } from "./server.js";

const SHOWN = 8; // directions, at most
const FAR = 3; // standard deviations, to either side

export class Sliders {
  // change(changes): of the state's `along` and `mean`.
  constructor(run, change) {
    Object.assign(this, { run, change, inputs: [] });
    this.list = make("div", { class: "sliders" });
    this.sentence = make("p", { class: "note", role: "status", hidden: true });
    this.mean = make("input", { type: "checkbox", autocomplete: "off",
      onchange: e => change({ mean: e.target.checked }) });
    const button = (words, act) => make("button", { type: "button", onclick: act }, words);
    this.row = make("div", { class: "row", hidden: true },
      button("Reset", () => change({ along: [] })),
      button("Random", () => change({ along: this.inputs.map(() => round(drawNormal())) })),
      make("label", { class: "check" }, this.mean, make("span", {}, "from the mean of all codes")));
    this.element = make("details", { class: "tool", ontoggle: () =>
      this.element.open && this.load() }, make("summary", {}, "Principal directions"),
    make("p", { class: "note" }, "Along them the codes of the training data differ most; a slider "
      + "is in standard deviations."), this.sentence, this.list, this.row);
  }

  async load() {
    if (this.loading) return;
    this.loading = true;
    try {
      for (;;) {
        const found = await getJson(`/api/runs/${this.run.id}/directions`);
        if (found.share) {
          this.fill(found.share);
          say(this.sentence, "");
          return;
        }
        say(this.sentence, found.sentence || "The directions are being found.");
        await wait(1000);
        if (!this.element.isConnected) break;
      }
    } catch (error) {
      if (!isOver(error)) say(this.sentence, error.message);
    }
    this.loading = false;
  }

  fill(share) {
    this.inputs = share.slice(0, SHOWN).map((part, i) => make("input", { type: "range", min: -FAR,
      max: FAR, step: 0.05, value: this.along?.[i] || 0, autocomplete: "off",
      oninput: () => this.change({ along: this.inputs.map(x => Number(x.value)) }) }));
    this.list.replaceChildren(...this.inputs.map((input, i) =>
      labelled(`${i + 1}: ${percent(share[i])} of the variance`, input, { class: "slider" })));
    this.row.hidden = false;
  }

  show(along, mean) {
    this.along = along;
    this.mean.checked = mean;
    if (along.some(x => x) || mean) this.element.open = true;
    this.inputs.forEach((input, i) => {
      if (Number(input.value) !== (along[i] || 0)) input.value = along[i] || 0;
    });
  }
}

function percent(part) {
  const found = 100 * part;
  return `${found < 0.1 ? "below 0.1" : found < 10 ? found.toFixed(1) : found.toFixed(0)} %`;
}

const round = x => Math.round(20 * Math.min(FAR, Math.max(-FAR, x))) / 20;

// A number of the normal distribution, by Box and Muller.
function drawNormal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}
