// A camera that goes around a shape or a scene.

class Orbit {
  // camera: centre, axes (two of the ground, and up), radius, elevation in radians, and focal, the
  // focal length over the width of an image of the shape (height, width).
  constructor(camera, shape) {
    Object.assign(this, camera);
    this.shape = shape;
    this.fit();
  }

  fit() {
    Object.assign(this, { angle: 0, tilt: this.elevation, zoom: 1, target: [...this.centre],
      cut: 1 });
  }

  // How far apart pixels of a drawing are, at distance 1.
  step(width, height) {
    const [rows, columns] = this.shape;
    return Math.max(columns / width, rows / height) / columns / this.focal;
  }

  // The axes of the camera, right, up and back, in the scene's coordinates.
  frame() {
    const [x, y, up] = this.axes, [ca, sa] = [Math.cos(this.angle), Math.sin(this.angle)];
    const [ct, st] = [Math.cos(this.tilt), Math.sin(this.tilt)];
    const mix = (a, b, c) => x.map((_, i) => a * x[i] + b * y[i] + c * up[i]);
    return [mix(-sa, ca, 0), mix(-st * ca, -st * sa, ct), mix(ct * ca, ct * sa, st)];
  }

  // Of the part of a drawing (width, height) from the pixel (x, y) on, rows from the bottom.
  uniforms(width, height, x = 0, y = 0) {
    const step = this.step(width, height), [right, up, back] = this.frame();
    const far = this.radius / this.zoom;
    return {
      window: [step * (x - width / 2), step * (y - height / 2), step, step],
      eye: this.target.map((t, i) => t + far * back[i]),
      turn: [right, up, back].flat(),
      cut: this.cut,
    };
  }

  move(shift, size, aside = false) {
    if (aside) {
      const by = this.step(...size) * this.radius / this.zoom, [right, up] = this.frame();
      this.target = this.target.map((t, i) => t - by * (shift[0] * right[i] - shift[1] * up[i]));
      return;
    }
    const turn = Math.PI / Math.min(...size), most = Math.PI / 2 - 1e-3;
    this.angle -= shift[0] * turn;
    this.tilt = clamp(this.tilt + shift[1] * turn, -most, most);
  }

  scale(factor) {
    this.zoom = clamp(this.zoom * factor, 0.1, 1e4);
  }

  describe() {
    return "";
  }

  state() {
    return { angle: this.angle, tilt: this.tilt, zoom: this.zoom, target: [...this.target] };
  }
}
