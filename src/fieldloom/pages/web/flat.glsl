// An image, one moment of a video, or a map: a window onto a plane.
uniform vec4 window;  // corner (x, y) and step (x, y) of a pixel, as fractions of the whole
uniform float time;   // of a video, as a fraction
uniform float steep;  // factor of logits
uniform float raw;    // 1: data that are not clamped
out vec4 colour;

void main() {
  vec2 p = window.xy + gl_FragCoord.xy * window.zw;
  vec4[1] x = vec4[1](vec4(0.0));
  x[0] = coordinates(p, time);
  vec4 found = data(field(x)[0], steep);
  vec3 shown = CHANNELS == 1 ? found.xxx : found.xyz;
  bool inside = all(greaterThanEqual(p, vec2(0.0))) && all(lessThanEqual(p, vec2(1.0)));
  colour = raw > 0.5 ? found : inside ? vec4(clamp(shown, 0.0, 1.0), 1.0) : vec4(BACKGROUND, 1.0);
}
