// A map of the sphere, seen from far away.
uniform vec4 window;  // corner (x, y) and step (x, y) of a pixel, in radii
uniform mat3 turn;    // from the eye's axes (right, up, towards the eye) to the globe's
uniform float steep;
uniform float raw;
out vec4 colour;

void main() {
  vec2 p = window.xy + gl_FragCoord.xy * window.zw;
  float r = dot(p, p);
  vec3 place = turn * vec3(p, sqrt(max(0.0, 1.0 - r)));
  vec4[1] x = vec4[1](vec4(place, 0.0));
  vec4 found = data(field(x)[0], steep);
  vec3 shown = CHANNELS == 1 ? found.xxx : found.xyz;
  shown = r <= 1.0 ? clamp(shown, vec3(0.0), vec3(1.0)) : BACKGROUND;
  colour = raw > 0.5 ? told(found, raw) : vec4(shown, 1.0);
}
