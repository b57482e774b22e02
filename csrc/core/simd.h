// Width-generic vectors. f32x16 is sixteen floats whatever the machine: one 512-bit register, two of 256 or four of
// 128. Every operation is elementwise IEEE and every reduction is a fixed tree over the sixteen lanes, so a kernel
// written on it gives the same bits on every instruction set. Include only from *_cpu.cpp (it lives in the ISA's
// namespace).
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

struct f32x16 {
    native_f32 part[kParts];

    static f32x16 broadcast(float value) {
        f32x16 r;
        for (int p = 0; p < kParts; ++p) r.part[p] = native_f32{} + value;
        return r;
    }
    static f32x16 zero() { return broadcast(0.0f); }
};

#define IVK_BINARY(op)                                                       \
    inline f32x16 operator op(f32x16 a, const f32x16& b) {                   \
        for (int p = 0; p < kParts; ++p) a.part[p] = a.part[p] op b.part[p]; \
        return a;                                                            \
    }
IVK_BINARY(+)
IVK_BINARY(-)
IVK_BINARY(*)
IVK_BINARY(/)
#undef IVK_BINARY

// a * b + c: one rounding where the instruction set has a fused form (kFused), else two.
#if defined(__AVX512F__)
constexpr bool kFused = true;
inline native_f32 multiply_add(native_f32 a, native_f32 b, native_f32 c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__FMA__)
constexpr bool kFused = true;
inline native_f32 multiply_add(native_f32 a, native_f32 b, native_f32 c) { return _mm256_fmadd_ps(a, b, c); }
#elif defined(__aarch64__)
constexpr bool kFused = true;
inline native_f32 multiply_add(native_f32 a, native_f32 b, native_f32 c) { return vfmaq_f32(c, a, b); }
#else
constexpr bool kFused = false;
inline native_f32 multiply_add(native_f32 a, native_f32 b, native_f32 c) { return a * b + c; }
#endif
inline f32x16 multiply_add(const f32x16& a, const f32x16& b, f32x16 c) {
    for (int p = 0; p < kParts; ++p) c.part[p] = multiply_add(a.part[p], b.part[p], c.part[p]);
    return c;
}

inline f32x16& operator+=(f32x16& a, const f32x16& b) { return a = a + b; }

// Elementwise b > a ? b : a, so a NaN in b is dropped and one in a is kept.
inline f32x16 max(f32x16 a, const f32x16& b) {
    for (int p = 0; p < kParts; ++p) a.part[p] = b.part[p] > a.part[p] ? b.part[p] : a.part[p];
    return a;
}

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

// Part by part: one copy of all sixteen goes through the stack on GCC 12.
inline f32x16 load(const float* x) {
    f32x16 r;
    for (int p = 0; p < kParts; ++p) std::memcpy(&r.part[p], x + p * kNative, sizeof r.part[p]);
    return r;
}
inline f32x16 load(const bf16* x) {
    f32x16 r;
    for (int p = 0; p < kParts; ++p) {
        native_u16 h;
        std::memcpy(&h, x + p * kNative, sizeof h);
        r.part[p] = widen(h);
    }
    return r;
}
inline f32x16 load(const f16* x) {
    f32x16 r;
    for (int p = 0; p < kParts; ++p) {
        native_f16 h;
        std::memcpy(&h, x + p * kNative, sizeof h);
        r.part[p] = widen(h);
    }
    return r;
}
inline void store(float* y, const f32x16& v) {
    for (int p = 0; p < kParts; ++p) std::memcpy(y + p * kNative, &v.part[p], sizeof v.part[p]);
}
inline void store(bf16* y, const f32x16& v) {
    for (int p = 0; p < kParts; ++p) {
        const native_u16 h = narrow(v.part[p]);
        std::memcpy(y + p * kNative, &h, sizeof h);
    }
}
inline void store(f16* y, const f32x16& v) {
    for (int p = 0; p < kParts; ++p) {
        const native_f16 h = narrow_f16(v.part[p]);
        std::memcpy(y + p * kNative, &h, sizeof h);
    }
}

// The last n < 16 elements of a row; missing lanes read as zero and are not written.
template <typename T>
f32x16 load_tail(const T* x, int64_t n) {
    T buffer[kLanes] = {};
    std::memcpy(buffer, x, n * sizeof(T));
    return load(buffer);
}
template <typename T>
void store_tail(T* y, const f32x16& v, int64_t n) {
    T buffer[kLanes];
    store(buffer, v);
    std::memcpy(y, buffer, n * sizeof(T));
}

// Runs body(offset, lanes) over a row; lanes is 16 except for the last piece. `at` and `put` pick the whole or tail
// form.
template <typename T>
f32x16 at(const T* x, int64_t lanes) {
    return lanes == kLanes ? load(x) : load_tail(x, lanes);
}
template <typename T>
void put(T* y, const f32x16& v, int64_t lanes) {
    if (lanes == kLanes)
        store(y, v);
    else
        store_tail(y, v, lanes);
}
template <typename F>
void for_lanes(int64_t n, F&& body) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) body(i, int64_t{kLanes});
    if (i < n) body(i, n - i);
}

// Fixed tree: lane i + lane i+8, then +4, +2, +1.
inline float sum(const f32x16& v) {
    float lane[kLanes];
    store(lane, v);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
    return lane[0];
}

}  // namespace IVK_ISA
}  // namespace ivk
