// Pointers, touches and the wheel over a canvas, as what they mean.

// act: move(shift, aside), zoom(factor, point), hover(point), leave(). Points and shifts are in CSS
// pixels; aside: whether what is seen should move within the plane of the screen.
function followPointers(canvas, act) {
  const held = new Map(), on = (what, call) => canvas.addEventListener(what, call);
  const point = event => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  on("pointerdown", event => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("drag");
    held.set(event.pointerId, point(event));
    act.hover(point(event));
  });
  on("pointermove", event => {
    const before = held.get(event.pointerId), now = point(event);
    if (!before) return act.hover(now);
    held.set(event.pointerId, now);
    const shift = [now[0] - before[0], now[1] - before[1]];
    if (held.size === 1) return act.move(shift, event.shiftKey);
    const [, other] = [...held].find(([id]) => id !== event.pointerId);
    const length = p => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
    act.move(shift.map(x => x / 2), true);
    act.zoom(length(now) / length(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
  });
  for (const end of ["pointerup", "pointercancel"])
    on(end, event => {
      held.delete(event.pointerId);
      if (!held.size) canvas.classList.remove("drag");
    });
  on("pointerleave", () => act.leave());
  on("wheel", event => {
    event.preventDefault();
    const unit = [1, 16, 400][event.deltaMode]; // pixels, lines, pages
    act.zoom(Math.exp(-event.deltaY * unit / 400), point(event));
  });
  on("dblclick", event => act.zoom(2, point(event)));
}

// Call act where a CSS pixel has another number of the screen's, as on another screen, and where
// light or dark is chosen.
function followScreen(act) {
  const watch = () => matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener(
    "change", () => { watch(); act(); }, { once: true });
  watch();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", act);
}
