// What is read of a pixel: numbers that are not clamped, or, where raw is 2 and more, the bytes of
// one of them, for devices that draw into no floats.
vec4 told(vec4 found, float raw) {
  if (raw < 1.5) return found;
  uint b = floatBitsToUint(found[int(raw) - 2]);
  return vec4(uvec4(b, b >> 8, b >> 16, b >> 24) & uvec4(255u)) / 255.0;
}
