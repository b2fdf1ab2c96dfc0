uniform float raw;    // 0: colours; 1: numbers that are not clamped; from 2 on: the bytes of one

vec4 told(vec4 found) {
  if (raw < 1.5) return found;
  uint b = floatBitsToUint(found[int(raw) - 2]);
  return vec4(uvec4(b, b >> 8, b >> 16, b >> 24) & 255u) / 255.0;
}
