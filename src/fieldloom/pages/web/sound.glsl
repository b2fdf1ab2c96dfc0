// The samples of a sound, row by row: pixel i of a drawing is at the coordinate first + i * step.
uniform vec3 line; // first, step, pixels of a row
uniform float raw; // 1: numbers
out vec4 colour;

void main() {
  float i = floor(gl_FragCoord.y) * line.z + gl_FragCoord.x; // in the middle of its cell
  vec4[1] x = vec4[1](vec4(0.0));
  x[0] = coordinates(vec2(line.x + i * line.y), 0.0);
  colour = told(data(field(x)[0], 1.0), raw);
}
