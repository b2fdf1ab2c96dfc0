// An image, one moment of a video, or a map: a window onto a plane.
uniform vec4 window;  // coordinates (x, y) of the corner, and the step (x, y) of a pixel
uniform vec4 inside;  // the pixels (left, bottom, right, top) where there are data
uniform float time;   // of a video, as a fraction
uniform float steep;  // factor of logits
uniform float raw;    // 1: data that are not clamped
out vec4 colour;

void main() {
  vec2 p = gl_FragCoord.xy;
  vec4[1] x = vec4[1](vec4(0.0));
  x[0] = coordinates(window.xy + p * window.zw, time);
  vec4 found = data(field(x)[0], steep);
  vec3 shown = CHANNELS == 1 ? found.xxx : found.xyz;
  bool within = min(p.x - inside.x, p.y - inside.y) >= 0.0
    && max(p.x - inside.z, p.y - inside.w) <= 0.0;
  shown = within ? clamp(shown, vec3(0.0), vec3(1.0)) : BACKGROUND;
  colour = raw > 0.5 ? told(found, raw) : vec4(shown, 1.0);
}
