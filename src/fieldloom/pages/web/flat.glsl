// An image, one moment of a video, or a map: a window onto a plane.
uniform vec4 window;  // coordinates (x, y) of the corner, and the step (x, y) of a pixel
uniform vec4 inside;  // the pixels (left, bottom, right, top) where there are data
uniform float time;   // of a video, as a fraction
uniform float steep;  // factor of logits
out vec4 colour;

void main() {
  vec2 p = gl_FragCoord.xy;
  vec4[1] x = vec4[1](vec4(0.0));
  x[0] = coordinates(window.xy + p * window.zw, time);
  vec4 found = data(field(x)[0], steep);
  vec3 shown = CHANNELS == 1 ? found.xxx : found.xyz;
  bool within = all(greaterThanEqual(p, inside.xy)) && all(lessThanEqual(p, inside.zw));
  colour = raw > 0.5 ? told(found) : within ? vec4(clamp(shown, 0.0, 1.0), 1.0)
    : vec4(BACKGROUND, 1.0);
}
