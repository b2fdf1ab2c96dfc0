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
  bool inside = min(p.x, p.y) >= 0.0 && max(p.x, p.y) <= 1.0;
  shown = inside ? clamp(shown, vec3(0.0), vec3(1.0)) : BACKGROUND;
  colour = raw > 0.5 ? found : vec4(shown, 1.0);
}
