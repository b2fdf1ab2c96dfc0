// A shape: the first place on each ray where the field passes 1/2, lit from the eye.
uniform vec4 window;  // corner (x, y) and step (x, y) of a pixel, at distance 1
uniform vec3 eye;
uniform mat3 turn;    // from the camera's axes (right, up, back)
uniform float cut;    // what is drawn of the depth of the box along its first axis, from 0 to 1
uniform float steps;  // of a ray through the box
uniform float raw;    // 1: the distance along the ray, and the normal
out vec4 colour;

float above(vec3 p) {
  vec4[1] x = vec4[1](vec4(p, 0.0));
  return data(field(x)[0], 1.0).x - 0.5;
}

void main() {
  vec2 p = window.xy + gl_FragCoord.xy * window.zw;
  vec3 d = turn * normalize(vec3(p, -1.0));
  vec3 low = vec3(LOW), high = vec3(mix(LOW, HIGH, cut), HIGH, HIGH);
  vec3 a = (low - eye) / d, b = (high - eye) / d, near = min(a, b), far = max(a, b);
  float t0 = max(max(near.x, max(near.y, near.z)), 0.0), t1 = min(far.x, min(far.y, far.z));
  colour = raw > 0.5 ? told(vec4(0.0), raw) : vec4(BACKGROUND, 1.0);
  if (t0 >= t1) return;
  float h = (t1 - t0) / steps, t = t0, before = t0;
  bool flat_side = above(eye + t0 * d) > 0.0, found = flat_side;
  for (int i = 1; i <= 1024; i++) {
    if (found || float(i) > steps) break;
    before = t;
    t = t0 + float(i) * h;
    found = above(eye + t * d) > 0.0;
  }
  if (!found) return;
  if (!flat_side) {
    for (int i = 0; i < 10; i++) { // the surface is between before and t
      float middle = 0.5 * (before + t);
      if (above(eye + middle * d) > 0.0) t = middle; else before = middle;
    }
  }
  vec3 at = eye + t * d, n;
  float e = (HIGH - LOW) / 512.0;
  for (int i = 0; i < 3; i++) {
    vec3 by = vec3(0.0);
    by[i] = e;
    n[i] = above(at - by) - above(at + by);
  }
  if (flat_side) { // the side of the box, or the cut, that the ray came in by
    n = -sign(d) * step(near.yzx, near.xyz) * step(near.zxy, near.xyz);
  }
  n = dot(n, n) > 0.0 ? normalize(n) : -d;
  if (raw > 0.5) { colour = told(vec4(n, t), raw); return; }
  float light = 0.3 + 0.7 * max(0.0, dot(n, -d));
  vec3 paint = flat_side ? vec3(0.85, 0.55, 0.35) : vec3(0.72, 0.78, 0.86);
  colour = vec4(paint * light, 1.0);
}
