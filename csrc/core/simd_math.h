// Elementary functions on f32x16. Every step is one IEEE operation (no fused multiply-add), so all instruction sets
// give the same bits. Bounds were measured over a stepped sweep of the floats against double precision;
// tests/kernels/test_gemm.py holds the ops to them.
#pragma once

#include "core/simd.h"

namespace ivk {
namespace IVK_ISA {

// e^x, at most 1.2 ulp. NaN stays NaN, +inf and anything above 88.73 give +inf, below -103.98 gives 0; results below
// the smallest normal number are rounded once, as a correctly rounded function would.
inline native_f32 exp(native_f32 x) {
    x = x > 89.0f ? native_f32{} + 89.0f : x;
    x = x < -104.0f ? native_f32{} - 104.0f : x;
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
#if defined(__AVX512F__)
    return _mm512_maskz_scalef_ps(0xffff, power, n);  // one rounding, as below: equal bits
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

// x / (1 + e^-x), at most 3 ulp where e^-x is finite; below -88.73 the result is -0.
inline native_f32 silu(native_f32 x) { return x / (1.0f + exp(-x)); }

template <native_f32 (*function)(native_f32)>
f32x16 map(f32x16 x) {
    for (int p = 0; p < kParts; ++p) x.part[p] = function(x.part[p]);
    return x;
}
inline f32x16 exp(const f32x16& x) { return map<exp>(x); }
inline f32x16 silu(const f32x16& x) { return map<silu>(x); }

}  // namespace IVK_ISA
}  // namespace ivk
