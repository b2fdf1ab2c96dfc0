// The samples of a sound: pixel i of a drawing, row by row, is sample first + i of total.
uniform vec3 span; // first, total, pixels of a row
out vec4 colour;

void main() {
  float i = floor(gl_FragCoord.y) * span.z + gl_FragCoord.x; // in the middle of its cell
  vec4[1] x = vec4[1](vec4(0.0));
  x[0] = coordinates(vec2((span.x + i) / span.y), 0.0);
  colour = data(field(x)[0], 1.0);
}
