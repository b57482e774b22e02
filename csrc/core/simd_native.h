// The registers behind f32x16 and the steps between float, bfloat16 and float16 on one of them. Included by simd.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef IVK_ISA
#error "core/simd.h is for files compiled once per instruction set"
#endif

namespace ivk {
namespace IVK_ISA {

#if defined(__AVX512F__)
constexpr int kNative = 16;
#elif defined(__AVX__)
constexpr int kNative = 8;
#else
constexpr int kNative = 4;
#endif
constexpr int kLanes = 16;
constexpr int kParts = kLanes / kNative;

typedef float native_f32 __attribute__((vector_size(kNative * 4)));
typedef int32_t native_i32 __attribute__((vector_size(kNative * 4)));
typedef uint32_t native_u32 __attribute__((vector_size(kNative * 4)));
typedef uint16_t native_u16 __attribute__((vector_size(kNative * 2)));
#if defined(__aarch64__)
typedef __fp16 half_storage;  // GCC knows _Float16 in C++ there only from 13 on
typedef float16x4_t native_f16;
#else
typedef _Float16 half_storage;
typedef _Float16 native_f16 __attribute__((vector_size(kNative * 2)));
#endif

// Storage type of bfloat16: the upper half of a float.
struct bf16 {
    uint16_t bits;
};
using f16 = half_storage;

// float16 by intrinsics where there are any: GCC 12 turns the generic form into a library call per lane. The 512-bit
// forms are masked with all lanes on because the plain ones warn there.
inline native_f32 widen(native_f16 v) {
#if defined(__AVX512F__)
    return _mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(v));
#elif defined(__F16C__)
    return _mm256_cvtph_ps(reinterpret_cast<__m128i>(v));
#elif defined(__aarch64__)
    return vcvt_f32_f16(v);
#else
    return __builtin_convertvector(v, native_f32);
#endif
}

// Round to nearest even.
inline native_f16 narrow_f16(native_f32 v) {
#if defined(__AVX512F__)
    return reinterpret_cast<native_f16>(
        _mm512_maskz_cvtps_ph(0xffff, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    return reinterpret_cast<native_f16>(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    return vcvt_f16_f32(v);
#else
    return __builtin_convertvector(v, native_f16);
#endif
}

// The same for the two steps between 16 and 32 bits, which GCC 12 cuts into halves.
inline native_u32 extend(native_u16 v) {
#if defined(__AVX512F__)
    return reinterpret_cast<native_u32>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(v)));
#elif defined(__AVX2__)
    return reinterpret_cast<native_u32>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v)));
#else
    return __builtin_convertvector(v, native_u32);
#endif
}
inline native_u16 upper_half(native_u32 v) {
    v >>= 16;
#if defined(__AVX512F__)
    return reinterpret_cast<native_u16>(_mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(v)));
#elif defined(__AVX2__)
    const __m256i wide = reinterpret_cast<__m256i>(v);
    return reinterpret_cast<native_u16>(
        _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
#else
    return __builtin_convertvector(v, native_u16);
#endif
}

inline native_f32 widen(native_u16 v) {
    const native_u32 wide = extend(v) << 16;
    native_f32 r;
    std::memcpy(&r, &wide, sizeof r);
    return r;
}

// Rounds to bfloat16 precision, nearest even; a NaN stays a (quiet) NaN.
inline native_f32 round_bf16(native_f32 v) {
    native_u32 bits;
    std::memcpy(&bits, &v, sizeof bits);
    const native_u32 rounded = bits + (0x7fffu + ((bits >> 16) & 1u));
    bits = v == v ? rounded : bits | 0x400000u;
    bits &= 0xffff0000u;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}
inline native_u16 narrow(native_f32 v) {
    v = round_bf16(v);
    native_u32 bits;
    std::memcpy(&bits, &v, sizeof bits);
    return upper_half(bits);
}

// b > a ? b : a and b < a ? b : a, so that a NaN in a stays: one instruction where a comparison and a choice are two.
inline native_f32 larger(native_f32 b, native_f32 a) {
#if defined(__AVX512F__)
    return _mm512_maskz_max_ps(0xffff, b, a);
#elif defined(__AVX__)
    return _mm256_max_ps(b, a);
#elif defined(__SSE__)
    return _mm_max_ps(b, a);
#else
    return b > a ? b : a;
#endif
}
inline native_f32 smaller(native_f32 b, native_f32 a) {
#if defined(__AVX512F__)
    return _mm512_maskz_min_ps(0xffff, b, a);
#elif defined(__AVX__)
    return _mm256_min_ps(b, a);
#elif defined(__SSE__)
    return _mm_min_ps(b, a);
#else
    return b < a ? b : a;
#endif
}

}  // namespace IVK_ISA
}  // namespace ivk
