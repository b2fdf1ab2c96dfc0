// Views of a plane: where the window lies, and how dragging, the wheel and keys move it.

// The largest zoom, and the largest factor of logits: float32 holds nothing finer.
const NEAREST = 1e5, STEEPEST = 1e4;

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

// The coordinates of the middles of an axis's samples, as the package's Placement has them: of a
// fraction x of the axis it is first + slope * x. samples: into how many the axis is divided.
function placeSamples({ place, low, span }, samples) {
  const many = Math.max(2, samples);
  const [first, slope] = {
    centre: [0, 1], left: [-0.5 / many, 1], right: [0.5 / many, 1],
    corner: [-0.5 / (many - 1), many / (many - 1)],
  }[place];
  return [low + span * first, span * slope];
}

class Plane {
  // shape: (height, width) of the data, for the proportions. place: of samples on an axis. steep:
  // whether logits get steeper with the zoom.
  constructor(shape, place = { place: "centre", low: -1, span: 2 }, steep = false) {
    Object.assign(this, { shape, place, steep });
    this.fit();
  }

  fit() {
    Object.assign(this, { x: 0.5, y: 0.5, zoom: 1 });
  }

  // Fractions of the whole that a pixel of a drawing (width, height) covers: [x, y].
  step(width, height) {
    const [rows, columns] = this.shape;
    const pixel = Math.max(columns / width, rows / height) / this.zoom;
    return [pixel / columns, pixel / rows];
  }

  // Pixels of the whole: [x, y].
  samples(width, height) {
    return this.step(width, height).map(x => 1 / x);
  }

  // Of the part of a drawing (width, height) from the pixel (x, y) on, rows from the bottom. full:
  // the size that says where samples stand. Both ends are computed here, in double precision.
  uniforms(width, height, x = 0, y = 0, full = [width, height]) {
    const [dx, dy] = this.step(width, height), many = this.samples(...full);
    const left = this.x + dx * (x - width / 2), bottom = this.y + dy * (height / 2 - y);
    const [across, down] = many.map(n => placeSamples(this.place, n));
    return {
      window: [across[0] + across[1] * left, down[0] + down[1] * bottom,
        across[1] * dx, -down[1] * dy],
      inside: [-left / dx, (bottom - 1) / dy, (1 - left) / dx, bottom / dy],
    };
  }

  // The place below a point of the stage, as fractions; size: of the stage.
  at(point, size) {
    const [dx, dy] = this.step(...size);
    return [this.x + dx * (point[0] - size[0] / 2), this.y + dy * (point[1] - size[1] / 2)];
  }

  move(shift, size) {
    const [dx, dy] = this.step(...size);
    this.x = clamp(this.x - dx * shift[0], 0, 1);
    this.y = clamp(this.y - dy * shift[1], 0, 1);
  }

  scale(factor, point, size) {
    const before = this.at(point, size), [rows, columns] = this.shape;
    const own = Math.min(size[0] / columns, size[1] / rows), most = STEEPEST / own;
    this.zoom = clamp(this.zoom * factor, 0.1, this.steep ? Math.max(1, most) : NEAREST);
    const after = this.at(point, size);
    this.x = clamp(this.x + before[0] - after[0], 0, 1);
    this.y = clamp(this.y + before[1] - after[1], 0, 1);
  }

  describe(point, size) {
    const [x, y] = this.at(point, size), [rows, columns] = this.shape;
    if (Math.min(x, y) < 0 || Math.max(x, y) > 1) return "";
    return `row ${(y * rows).toFixed(2)}, column ${(x * columns).toFixed(2)}`;
  }

  state() {
    return { x: this.x, y: this.y, zoom: this.zoom };
  }
}
