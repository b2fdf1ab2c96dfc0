// Views of a plane: where the window lies, and how dragging, the wheel and keys move it.

class Plane {
  // shape: (height, width) of the data, for the proportions.
  constructor(shape) {
    this.shape = shape;
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

  uniforms(width, height) {
    const [dx, dy] = this.step(width, height);
    // rows of WebGL count from the bottom
    return { window: [this.x - dx * width / 2, this.y + dy * height / 2, dx, -dy] };
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
    const before = this.at(point, size);
    this.zoom = clamp(this.zoom * factor, 0.1, 1e5);
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

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
