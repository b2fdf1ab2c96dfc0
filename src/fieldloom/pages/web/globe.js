// A globe that is turned and approached. Its axes: z to the north, longitude 0 along x.

class Globe {
  constructor() {
    this.fit();
  }

  fit() {
    Object.assign(this, { longitude: 0, latitude: 0.3, zoom: 1 });
  }

  // Radii that a pixel of a drawing covers.
  step(width, height) {
    return 2.1 / Math.min(width, height) / this.zoom;
  }

  // From the eye's axes (right, up, towards the eye) to the globe's, column by column.
  turn() {
    const [cl, sl] = [Math.cos(this.longitude), Math.sin(this.longitude)];
    const [cb, sb] = [Math.cos(this.latitude), Math.sin(this.latitude)];
    return [-sl, cl, 0, -sb * cl, -sb * sl, cb, cb * cl, cb * sl, sb];
  }

  // Pixels around the equator, and from pole to pole.
  samples(width, height) {
    return [2, 1].map(x => x * Math.PI / this.step(width, height));
  }

  // Of the part of a drawing (width, height) from the pixel (x, y) on, rows from the bottom.
  uniforms(width, height, x = 0, y = 0) {
    const step = this.step(width, height);
    const window = [step * (x - width / 2), step * (y - height / 2), step, step];
    return { window, turn: this.turn() };
  }

  // Latitude and longitude in degrees below a point of the stage; null beside the globe.
  at(point, size) {
    const step = this.step(...size);
    const x = (point[0] - size[0] / 2) * step, y = (size[1] / 2 - point[1]) * step;
    if (x * x + y * y > 1) return null;
    const eye = [x, y, Math.sqrt(1 - x * x - y * y)], t = this.turn();
    const place = [0, 1, 2].map(i => t[i] * eye[0] + t[3 + i] * eye[1] + t[6 + i] * eye[2]);
    const degrees = 180 / Math.PI;
    return [Math.asin(clamp(place[2], -1, 1)) * degrees, Math.atan2(place[1], place[0]) * degrees];
  }

  move(shift, size) {
    const step = this.step(...size);
    this.longitude -= shift[0] * step;
    this.latitude = clamp(this.latitude + shift[1] * step, -Math.PI / 2, Math.PI / 2);
  }

  scale(factor) {
    this.zoom = clamp(this.zoom * factor, 0.3, 1e4);
  }

  describe(point, size) {
    const found = this.at(point, size);
    if (!found) return "";
    const [north, east] = found.map(Math.abs).map(x => x.toFixed(2));
    return `${north}° ${found[0] < 0 ? "S" : "N"}, ${east}° ${found[1] < 0 ? "W" : "E"}`;
  }

  state() {
    return { longitude: this.longitude, latitude: this.latitude, zoom: this.zoom };
  }
}
