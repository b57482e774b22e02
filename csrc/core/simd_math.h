// Elementary functions on f32x16. Every step of exp and silu is one IEEE operation (no fused multiply-add), so all
// instruction sets give the same bits. Bounds were measured over a stepped sweep of the floats against double
// precision; tests/kernels/test_gemm.py holds the ops to them.
#pragma once

#include "core/simd.h"

namespace ivk {
namespace IVK_ISA {

inline native_f32 at_least(native_f32 x, float bound) { return larger(bound - native_f32{}, x); }
inline native_f32 at_most(native_f32 x, float bound) { return smaller(bound - native_f32{}, x); }

// power * 2^n, rounded once, for the n that an addition of 1.5 * 2^23 has left in `shifted`'s low bits.
inline native_f32 scale(native_f32 power, native_f32 shifted) {
#if defined(__AVX512F__)
    return _mm512_maskz_scalef_ps(0xffff, power, shifted - 0x1.8p23f);
#else
    // 2^n as the product of two normal numbers, so that overflow and gradual underflow come out of the multiplication.
    native_i32 exponent;
    std::memcpy(&exponent, &shifted, sizeof exponent);
    exponent -= 0x4b400000;
    const native_i32 half = exponent >> 1;
    const native_i32 bits_a = (half + 127) << 23, bits_b = (exponent - half + 127) << 23;
    native_f32 a, b;
    std::memcpy(&a, &bits_a, sizeof a);
    std::memcpy(&b, &bits_b, sizeof b);
    return power * a * b;
#endif
}

// e^x, at most 1.2 ulp. NaN stays NaN, +inf and anything above 88.73 give +inf, below -103.98 gives 0; results below
// the smallest normal number are rounded once, as a correctly rounded function would.
inline native_f32 exp(native_f32 x) {
    x = at_least(at_most(x, 89.0f), -104.0f);
    // x = n ln2 + r with |r| <= ln2 / 2: adding 1.5 * 2^23 leaves round(x / ln2) in the low bits.
    const native_f32 shifted = x * 0x1.715476p0f + 0x1.8p23f;
    const native_f32 n = shifted - 0x1.8p23f;
    const native_f32 r =
        (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;  // the upper part of ln2 has 15 bits: exact product
    native_f32 p = r * 0x1.a1b8596aa6b60p-13f + 0x1.6d96d2b4808d8p-10f;
    p = p * r + 0x1.11107cb2e0866p-7f;
    p = p * r + 0x1.5554800002fc6p-5f;
    p = p * r + 0x1.5555559829a98p-3f;
    p = p * r + 0x1.0000004314884p-1f;
    const native_f32 power = (r * r * p + r) + 1.0f;
    return scale(power, shifted);
}

// x / (1 + e^-x), at most 3 ulp where e^-x is finite; below -88.73 the result is -0.
inline native_f32 silu(native_f32 x) { return x / (1.0f + exp(-x)); }

// GPT-OSS's gate: g sigmoid(1.702 g) (u + 1), g at most limit, u from -limit to limit; NaN stays NaN.
inline native_f32 clamped_swiglu(native_f32 gate, native_f32 up, float limit) {
    const native_f32 g = at_most(gate, limit), u = at_least(at_most(up, limit), -limit);
    return (u + 1.0f) * (g / (1.0f + exp(g * -1.702f)));
}

// The two below use fused multiply-adds where the ISA level has them (v3 and v4: equal bits; base: two roundings).

// 2^x for x of at most 129, at most 1 ulp (base: 1.3); NaN stays NaN, above 128 gives +inf, below -150 gives 0. 2^0
// is 1.
inline native_f32 exp2_bounded(native_f32 x) {
    x = at_least(x, -151.0f);
    const native_f32 shifted = x + 0x1.8p23f;
    const native_f32 f = x - (shifted - 0x1.8p23f);
    const auto constant = [](float value) { return value - native_f32{}; };
    native_f32 p = constant(0x1.41a6fcp-13f);
    p = multiply_add(p, f, constant(0x1.5f44f0p-10f));
    p = multiply_add(p, f, constant(0x1.3b2dfep-7f));
    p = multiply_add(p, f, constant(0x1.c6aed6p-5f));
    p = multiply_add(p, f, constant(0x1.ebfbdap-3f));
    p = multiply_add(p, f, constant(0x1.62e430p-1f));
    p = multiply_add(p, f, constant(1.0f));
    return scale(p, shifted);
}

inline native_f32 exp2(native_f32 x) { return exp2_bounded(at_most(x, 129.0f)); }

// x Phi(x), the exact GELU. Phi(-|x|) = erfc(z) / 2 with z = |x| / sqrt 2, and erfc(z) = t 2^(polynomial(t) - z^2 log2
// e), t = 1 / (1 + z / 2): a fit on Chebyshev points of t in [0.1, 1], 3.7e-8 off at most.
inline native_f32 gelu(native_f32 x) {
    const auto constant = [](float value) { return value - native_f32{}; };
    const native_f32 z = (x < 0.0f ? -x : x) * 0x1.6a09e6p-1f;
    const native_f32 t = 1.0f / multiply_add(z, constant(0.5f), constant(1.0f));
    native_f32 p = constant(-0.13275567867765503f);
    p = multiply_add(p, t, constant(0.9804638617979144f));
    p = multiply_add(p, t, constant(-2.942079077999353f));
    p = multiply_add(p, t, constant(4.5290361060719855f));
    p = multiply_add(p, t, constant(-3.6528163280208577f));
    p = multiply_add(p, t, constant(1.5054415748783445f));
    p = multiply_add(p, t, constant(-0.6609750060145952f));
    p = multiply_add(p, t, constant(0.22816375122891006f));
    p = multiply_add(p, t, constant(0.5276902349773631f));
    p = multiply_add(p, t, constant(1.4436047131301046f));
    p = multiply_add(p, t, constant(-1.8257741298467374f));
    native_f32 power = multiply_add(z * -0x1.715476p0f, z, p);
    power = at_least(power, -100.0f);  // what is smaller is nothing; subnormal numbers are slow
    const native_f32 tail = 0.5f * t * exp2_bounded(power);
    return x * (x > 0.0f ? 1.0f - tail : tail);
}

// Inlined whatever the size: a call passes several registers through memory, piece by piece (GELU on AVX2: 2.7 times
// as long).
template <native_f32 (*function)(native_f32)>
__attribute__((always_inline)) inline f32x16 map(const f32x16& x) {
    f32x16 r;
    for (int p = 0; p < kParts; ++p) r.part[p] = function(x.part[p]);
    return r;
}
inline f32x16 exp(const f32x16& x) { return map<exp>(x); }
inline f32x16 silu(const f32x16& x) { return map<silu>(x); }
inline f32x16 exp2(const f32x16& x) { return map<exp2>(x); }
inline f32x16 exp2_bounded(const f32x16& x) { return map<exp2_bounded>(x); }
inline f32x16 gelu(const f32x16& x) { return map<gelu>(x); }

// silu(gate) * up, or with a limit clamped_swiglu.
__attribute__((always_inline)) inline f32x16 gated(const f32x16& gate, const f32x16& up, float limit) {
    if (limit == 0.0f) return silu(gate) * up;
    f32x16 r;
    for (int p = 0; p < kParts; ++p) r.part[p] = clamped_swiglu(gate.part[p], up.part[p], limit);
    return r;
}

}  // namespace IVK_ISA
}  // namespace ivk
