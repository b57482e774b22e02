// Width-generic vectors. f32x16 is sixteen floats whatever the machine: one 512-bit register, two of 256 or four of
// 128. Every operation is elementwise IEEE and every reduction is a fixed tree over the sixteen lanes, so a kernel
// written on it gives the same bits on every instruction set. Include only from *_cpu.cpp (it lives in the ISA's
// namespace).
#pragma once

#include "core/simd_native.h"

namespace ivk {
namespace IVK_ISA {

struct f32x16 {
    native_f32 part[kParts];

    static f32x16 broadcast(float value) {
        f32x16 r;
        for (int p = 0; p < kParts; ++p) r.part[p] = value - native_f32{};
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
    for (int p = 0; p < kParts; ++p) a.part[p] = larger(b.part[p], a.part[p]);
    return a;
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
