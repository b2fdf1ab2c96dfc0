// The training data that are nearest to what is shown.

import { make, say } from "./elements.js";
import { getJson, isOver } from "./server.js";
import { addressOf, addressOfDatum } from "./codes.js";

const COUNT = 6, SIZE = 96, RESTING = 400; // milliseconds without a change until they are sought

export class Nearest {
  constructor() {
    this.list = make("ul", { class: "nearest" });
    this.sentence = make("p", { class: "note", role: "status", hidden: true });
    this.element = make("section", { class: "tool", "aria-label": "Nearest training data" },
      make("h3", {}, "Nearest training data"), this.sentence, this.list);
  }

  show(code) {
    clearTimeout(this.timer);
    this.stop?.abort();
    this.timer = setTimeout(() => this.find(code), RESTING);
  }

  async find(code) {
    const stop = this.stop = new AbortController();
    say(this.sentence, "seeking");
    try {
      const address = `${addressOf(code, "nearest")}?count=${COUNT}`;
      const { nearest, measure, compared, of } = await getJson(address, stop.signal);
      this.list.replaceChildren(...nearest.map(found => make("li", {},
        make("img", { src: addressOfDatum(code.run, found, SIZE), alt: found.name,
          loading: "lazy" }),
        make("span", { class: "name", title: found.name }, found.name),
        make("span", { class: "note", title: "distance" }, format(found.distance)))));
      const some = compared < of ? `, of ${compared.toLocaleString("en")} of them` : "";
      say(this.sentence, nearest.length ? `Distance: ${measure}${some}.`
        : compared ? "What is shown is empty, which cannot be compared."
          : "There are none to compare with.");
    } catch (error) {
      if (error.name === "AbortError") return;
      this.list.replaceChildren();
      if (!isOver(error)) say(this.sentence, error.message);
    }
  }

  discard() {
    clearTimeout(this.timer);
    this.stop?.abort();
  }
}

function format(distance) {
  return Number(distance.toPrecision(3)).toString();
}
