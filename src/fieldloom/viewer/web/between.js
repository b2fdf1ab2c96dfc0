// What lies between two tiles: the second one is dropped on the first, or picked after a button.

import { labelled, make } from "./elements.js";

export class Between {
  // pick(on): whether the next tile that is picked is the second one. change(changes): of the
  // state's `other` and `at`.
  constructor({ pick, change }) {
    Object.assign(this, { pick, change });
    this.start = make("button", { type: "button", "aria-pressed": "false",
      onclick: () => this.wait(!this.waiting) }, "Interpolate with another tile");
    this.told = make("p", { class: "note", role: "status" });
    this.slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, autocomplete: "off",
      oninput: e => this.change({ at: Number(e.target.value) }) });
    this.ends = [make("span"), make("span")];
    const end = make("button", { type: "button", onclick: () => this.change({ other: null }) },
      "End");
    this.line = make("div", { class: "between", hidden: true }, this.ends[0],
      labelled("How far between", this.slider, { class: "slider only" }), this.ends[1], end);
    this.element = make("section", { class: "tool", "aria-label": "Interpolation" },
      make("h3", {}, "Interpolation"), make("div", { class: "row" }, this.start, this.told),
      this.line);
    this.wait(false);
  }

  wait(on) {
    this.waiting = on;
    this.start.setAttribute("aria-pressed", String(on));
    this.start.textContent = on ? "Cancel" : "Interpolate with another tile";
    this.told.textContent = on ? "Now choose the second tile of the gallery."
      : "Or drag one tile of the gallery onto another.";
    this.pick(on);
  }

  // first, second: codes; second is null where nothing is interpolated.
  show(first, second, at) {
    this.line.hidden = !second;
    this.start.parentElement.hidden = Boolean(second);
    if (!second) return;
    this.ends[0].textContent = first.name;
    this.ends[1].textContent = second.name;
    this.slider.value = at;
    this.slider.setAttribute("aria-valuetext", `${Math.round(100 * at)} % of the way`);
  }
}
