// LayerNorm and RMSNorm of one row, shared by the families that fuse a norm. Include only from *_cpu.cpp.
#pragma once

#include "core/simd.h"

namespace ivk {
namespace IVK_ISA {

// Sum of f(i, lanes) over a row in four accumulators, combined in a fixed order. f must give 0 in lanes past the row.
template <typename F>
float sum_lanes(int64_t n, F&& f) {
    f32x16 part[4] = {f32x16::zero(), f32x16::zero(), f32x16::zero(), f32x16::zero()};
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes)
        for (int k = 0; k < 4; ++k) part[k] += f(i + k * kLanes, int64_t{kLanes});
    for (int k = 0; i < n; i += kLanes, ++k) part[k] += f(i, n - i < kLanes ? n - i : int64_t{kLanes});
    return sum((part[0] + part[1]) + (part[2] + part[3]));
}

// Zero in the lanes from `n` on.
inline f32x16 keep(const f32x16& v, int64_t n) {
    if (n >= kLanes) return v;
    float lane[kLanes];
    store(lane, v);
    return load_tail(lane, n);
}

// The value after a store and a load of T.
template <typename T>
f32x16 rounded_to(f32x16 v) {
    for (int p = 0; p < kParts; ++p) {
        if constexpr (std::is_same_v<T, bf16>)
            v.part[p] = round_bf16(v.part[p]);
        else if constexpr (std::is_same_v<T, f16>)
            v.part[p] = widen(narrow_f16(v.part[p]));
    }
    return v;
}

// y = (x - mean) * rsqrt(var + eps) * weight + bias; bias may be null, y may be x.
template <typename T, typename Y>
void layer_norm_row(const T* x, const Y* weight, const Y* bias, Y* y, int64_t cols, float eps) {
    const float count = static_cast<float>(cols);
    const float mean = sum_lanes(cols, [&](int64_t i, int64_t n) { return at(x + i, n); }) / count;
    // A second pass over the cached row: the variance of centred values keeps its bits under large means.
    const f32x16 centre = f32x16::broadcast(mean);
    const float squares = sum_lanes(cols, [&](int64_t i, int64_t n) {
        const f32x16 d = keep(at(x + i, n) - centre, n);
        return d * d;
    });
    const f32x16 factor = f32x16::broadcast(1.0f / std::sqrt(squares / count + eps));
    for_lanes(cols, [&](int64_t i, int64_t n) {
        f32x16 v = (at(x + i, n) - centre) * factor * at(weight + i, n);
        if (bias != nullptr) v = v + at(bias + i, n);
        put(y + i, v, n);
    });
}

// y = round(x * rsqrt(mean(x^2) + eps)) * weight, rounded to y's dtype, the inner rounding with `kTwice` alone; y may
// be x.
template <bool kTwice, typename T, typename Y>
void rms_norm_row(const T* x, const Y* weight, Y* y, int64_t cols, float eps) {
    const float squares = sum_lanes(cols, [&](int64_t i, int64_t n) {
        const f32x16 v = at(x + i, n);
        return v * v;
    });
    const f32x16 factor = f32x16::broadcast(1.0f / std::sqrt(squares / static_cast<float>(cols) + eps));
    for_lanes(cols, [&](int64_t i, int64_t n) {
        const f32x16 v = at(x + i, n) * factor;
        put(y + i, (kTwice ? rounded_to<Y>(v) : v) * at(weight + i, n), n);
    });
}

}  // namespace IVK_ISA
}  // namespace ivk
