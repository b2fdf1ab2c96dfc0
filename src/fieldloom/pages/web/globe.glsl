// A map of the sphere, seen from far away.
uniform vec4 window;  // corner (x, y) and step (x, y) of a pixel, in radii
uniform mat3 turn;    // from the eye's axes (right, up, towards the eye) to the globe's
uniform float steep;
out vec4 colour;

void main() {
  vec2 p = window.xy + gl_FragCoord.xy * window.zw;
  float r = dot(p, p);
  vec3 place = turn * vec3(p, sqrt(max(0.0, 1.0 - r)));
  vec4[1] x = vec4[1](vec4(place, 0.0));
  vec4 found = data(field(x)[0], steep);
  vec3 shown = CHANNELS == 1 ? found.xxx : found.xyz;
  colour = raw > 0.5 ? told(found) : r <= 1.0 ? vec4(clamp(shown, 0.0, 1.0), 1.0) : vec4(BACKGROUND, 1.0);
}
