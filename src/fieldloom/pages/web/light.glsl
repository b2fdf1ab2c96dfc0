// A light field: the value of each ray.
uniform vec4 window;  // corner (x, y) and step (x, y) of a pixel, at distance 1
uniform vec3 eye;
uniform mat3 turn;    // from the camera's axes (right, up, back)
uniform float raw;
out vec4 colour;

void main() {
  vec2 p = window.xy + gl_FragCoord.xy * window.zw;
  vec3 found = ray(eye, turn * vec3(p, -1.0));
  colour = raw > 0.5 ? told(vec4(found, 1.0), raw) : vec4(clamp(found, vec3(0.0), vec3(1.0)), 1.0);
}
