// Elements of the page. Names and sentences become text, never markup.

// attributes: of the element; those that begin with "on" are listeners, and false and null are left
// out.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(x => x !== null && x !== false && x !== undefined));
  return element;
}

export function drawing(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A control with its words before it.
export function labelled(words, control, own = {}) {
  return make("label", own, make("span", {}, words), control);
}

export function choice(words, options, chosen, onchange, own = {}) {
  const items = options.map(([value, text]) =>
    make("option", { value, selected: String(value) === String(chosen) }, text));
  const control = make("select", { autocomplete: "off",
    onchange: e => onchange(e.target.value) }, ...items);
  return labelled(words, control, own);
}

// A sentence where it belongs; an empty one takes no room.
export function say(element, sentence) {
  element.textContent = sentence;
  element.hidden = !sentence;
}

// act, one at a time: while it works, of all further calls the newest alone is kept.
export function newest(act) {
  let busy = false, waiting = null;
  return async (...given) => {
    waiting = given;
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const now = waiting;
        waiting = null;
        await act(...now);
      }
    } finally {
      busy = false;
    }
  };
}

export function wait(milliseconds) {
  return new Promise(done => setTimeout(done, milliseconds));
}
