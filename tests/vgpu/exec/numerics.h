// Floating formats in software: exact decomposition, and rounding of any exact value to any format.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "ptx/ir.h"

namespace vgpu {

enum class Rounding : uint8_t { nearest, zero, down, up, away };  // away: nearest, ties away from zero (rna)

struct Format {
    int exponent_bits, mantissa_bits;
    bool infinity;  // e4m3 has none: its largest exponent holds numbers, all ones is NaN
};
constexpr Format kF16{5, 10, true}, kBf16{8, 7, true}, kTf32{8, 10, true}, kF32{8, 23, true}, kF64{11, 52, true};
constexpr Format kE4m3{4, 3, false}, kE5m2{5, 2, true};

template <class To, class From>
inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline double bits_to_double(uint64_t b) { return same_bits<double>(b); }
inline uint64_t double_to_bits(double d) { return same_bits<uint64_t>(d); }
inline float bits_to_float(uint32_t b) { return same_bits<float>(b); }
inline uint32_t float_to_bits(float d) { return same_bits<uint32_t>(d); }

inline uint64_t canonical_nan(const Format& f) {
    if (!f.infinity) return 0x7f;
    return (uint64_t(1) << (f.exponent_bits + f.mantissa_bits)) - 1;  // positive, all ones
}
inline uint64_t largest_finite(const Format& f) {
    if (!f.infinity) return 0x7e;
    return (((uint64_t(1) << f.exponent_bits) - 1) << f.mantissa_bits) - 1;
}

// (-1)^negative * (magnitude + (sticky ? a little : 0)) * 2^exponent in format f. satfinite: overflow gives the largest
// finite number instead of infinity.
inline uint64_t round_exact(const Format& f, bool negative, uint64_t magnitude, int exponent, bool sticky, Rounding r,
                            bool satfinite = false) {
    uint64_t sign = uint64_t(negative) << (f.exponent_bits + f.mantissa_bits);
    if (magnitude == 0 && !sticky) return sign;
    const int bias = (1 << (f.exponent_bits - 1)) - 1,
              least = 1 - bias - f.mantissa_bits;  // exponent of the last place
    int top = magnitude ? 63 - __builtin_clzll(magnitude) : 0;
    int lsb = exponent + top - f.mantissa_bits;
    if (lsb < least) lsb = least;
    int shift = lsb - exponent;  // bits dropped
    uint64_t kept, half = 0;
    bool rest = sticky;
    if (shift <= 0) {
        kept = magnitude << -shift;
    } else if (shift > 64) {
        kept = 0, rest |= magnitude != 0;
    } else {
        kept = shift == 64 ? 0 : magnitude >> shift;
        half = magnitude >> (shift - 1) & 1;
        rest |= shift > 1 && (magnitude & ((uint64_t(1) << (shift - 1)) - 1));
    }
    bool up = false;
    switch (r) {
        case Rounding::nearest:
            up = half && (rest || (kept & 1));
            break;
        case Rounding::away:
            up = half;
            break;
        case Rounding::zero:
            break;
        case Rounding::down:
            up = negative && (half || rest);
            break;
        case Rounding::up:
            up = !negative && (half || rest);
            break;
    }
    kept += up;
    if (kept >> (f.mantissa_bits + 1)) kept >>= 1, ++lsb;
    uint64_t result;
    if (kept >> f.mantissa_bits)
        result = (uint64_t(lsb - least + 1) << f.mantissa_bits) + (kept - (uint64_t(1) << f.mantissa_bits));
    else
        result = kept;  // subnormal
    if (result > largest_finite(f)) {
        bool to_largest =
            satfinite || r == Rounding::zero || (r == Rounding::down && !negative) || (r == Rounding::up && negative);
        result = to_largest ? largest_finite(f) : f.infinity ? largest_finite(f) + 1 : canonical_nan(f);
    }
    return sign | result;
}

inline uint64_t round_double(const Format& f, double x, Rounding r, bool satfinite = false, bool sticky = false) {
    uint64_t b = double_to_bits(x);
    bool negative = b >> 63;
    int e = int(b >> 52 & 0x7ff);
    uint64_t m = b & ((uint64_t(1) << 52) - 1), sign = uint64_t(negative) << (f.exponent_bits + f.mantissa_bits);
    if (e == 0x7ff) {
        if (m) return canonical_nan(f);
        if (satfinite) return sign | largest_finite(f);
        return sign | (f.infinity ? largest_finite(f) + 1 : canonical_nan(f));
    }
    if (e == 0) return round_exact(f, negative, m, -1074, sticky, r, satfinite);
    return round_exact(f, negative, m | uint64_t(1) << 52, e - 1075, sticky, r, satfinite);
}

inline double to_double(const Format& f, uint64_t bits) {
    bool negative = bits >> (f.exponent_bits + f.mantissa_bits) & 1;
    uint64_t m = bits & ((uint64_t(1) << f.mantissa_bits) - 1);
    int e = int(bits >> f.mantissa_bits & ((1u << f.exponent_bits) - 1)), bias = (1 << (f.exponent_bits - 1)) - 1;
    double v;
    if (e == (1 << f.exponent_bits) - 1 && (f.infinity || m == (uint64_t(1) << f.mantissa_bits) - 1))
        v = m ? NAN : INFINITY;
    else if (e == 0)
        v = std::ldexp(double(m), 1 - bias - f.mantissa_bits);
    else
        v = std::ldexp(double(m | uint64_t(1) << f.mantissa_bits), e - bias - f.mantissa_bits);
    return negative ? -v : v;
}

inline float half_to_float(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest >= 0x400) return bits_to_float(sign | ((rest << 13) + 0x38000000));
    float f = float(rest) * 0x1p-24f;
    return bits_to_float(sign | float_to_bits(f));
}
inline float bf16_to_float(uint16_t h) { return bits_to_float(uint32_t(h) << 16); }
inline uint16_t float_to_half(float f) { return uint16_t(round_double(kF16, f, Rounding::nearest)); }
// Branch-free, so that lane loops vectorise. NaN becomes 0x7fff, as devices give.
inline uint16_t float_to_bf16(float f) {
    uint32_t b = float_to_bits(f);
    uint32_t rounded = (b + 0x7fff + (b >> 16 & 1)) >> 16;
    return uint16_t((b & 0x7fffffff) > 0x7f800000 ? 0x7fff : rounded);
}

// A double rounded to float so that a later rounding to fewer bits is right: inexact results have an odd last place.
inline float narrow_odd(double s) {
    float f = float(s);
    uint32_t b = float_to_bits(f);
    double back = f;
    bool inexact = back != s, beyond = std::fabs(back) > std::fabs(s);
    b -= beyond ? 1 : 0;
    b |= inexact ? 1 : 0;
    return bits_to_float(b);
}
// a * b + c for operands of at most 12 significant bits, rounded to odd: ready for one rounding to f16 or bf16.
inline float fma_odd(float a, float b, float c) {
    double p = double(a) * b, s = p + c;
    double back = s - p, error = (p - (s - back)) + (double(c) - back);  // two-sum
    uint64_t bits = double_to_bits(s);
    bool finite = (bits >> 52 & 0x7ff) != 0x7ff;
    // Move s one step towards the error when its last place is even, so that it ends odd and on the right side.
    uint64_t odd = (error > 0) == (s > 0) ? bits | 1 : (bits & 1 ? bits : bits - 1);
    s = finite && error != 0 && s != 0 ? bits_to_double(odd) : s;
    return s != s || !finite ? float(s) : narrow_odd(s);
}

}  // namespace vgpu
