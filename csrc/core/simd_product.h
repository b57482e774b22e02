// The innermost loops of every product: rows x kTile columns over one chain of k, and the packing that feeds them.
// Include only from *_cpu.cpp.
#pragma once

#include "core/panels.h"
#include "core/simd.h"

namespace ivk {
namespace IVK_ISA {

// Rows per call: as many accumulators as the registers hold beside one row of weights and a broadcast.
#if defined(__AVX512F__)
constexpr int kRows = 12;  // 24 of 32 registers
#elif defined(__AVX2__)
constexpr int kRows = 6;  // 12 of 16, a panel at a time
#elif defined(__aarch64__)
constexpr int kRows = 6;  // 24 of 32, a panel at a time
#else
constexpr int kRows = 2;  // 8 of 16, a panel at a time
#endif
constexpr int kPanelsAtOnce = kParts == 1 ? 2 : 1;

inline native_f32 part_of(const float* w, int p) {
    native_f32 r;
    std::memcpy(&r, w + p * kNative, sizeof r);
    return r;
}
inline native_f32 part_of(const bf16* w, int p) {
    native_u16 r;
    std::memcpy(&r, w + p * kNative, sizeof r);
    return widen(r);
}
inline native_f32 part_of(const f16* w, int p) {
    native_f16 r;
    std::memcpy(&r, w + p * kNative, sizeof r);
    return widen(r);
}

// Panels w + p * pitch, each [k][kPanel], and what will be read after them: with Fetch, fetched meanwhile. A prefetch
// costs as much as a load even where it finds its line, so of several calls on the same panels only the last does it.
template <typename W>
struct Weights {
    const W* data;
    int64_t pitch;
    const W* next;
};

// Where sums go: elements between rows, and between panels.
struct Sums {
    float* data;
    int64_t row, panel;
};

// c[R][P panels] (+)= the chain over k of x [k][R] and the weights.
template <int R, int P, bool Fetch, typename W>
void micro_panels(int64_t k, const float* __restrict x, const Weights<W>& weights, int panel, const Sums& c, bool add) {
    constexpr int kWide = P * kParts;
    const int64_t pitch = weights.pitch;
    const W* __restrict w = weights.data + panel * pitch;
    const W* next = Fetch ? weights.next + panel * pitch : nullptr;
    float* const data = c.data;
    const int64_t row = c.row, column = c.panel;
    native_f32 sum[R][kWide];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < kWide; ++v) sum[r][v] = native_f32{};
    for (int64_t i = 0; i < k; ++i) {
        native_f32 b[kWide];
        for (int v = 0; v < kWide; ++v) b[v] = part_of(w + v / kParts * pitch, v % kParts);
        if constexpr (Fetch) {
            for (int p = 0; p < P; ++p) __builtin_prefetch(next + p * pitch);
            next += kPanel;
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const native_f32 a = x[r] - native_f32{};  // a broadcast: 0 + x would be an addition
            for (int v = 0; v < kWide; ++v) sum[r][v] = multiply_add(a, b[v], sum[r][v]);
        }
        x += R;
        w += kPanel;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kWide; ++v) {  // unrolled, or the sums would go through memory
            float* to = data + r * row + (panel + v / kParts) * column + v % kParts * kNative;
            const native_f32 value = add ? part_of(to, 0) + sum[r][v] : sum[r][v];
            std::memcpy(to, &value, sizeof value);
        }
}

// c[R rows][P panels]
template <typename W, int R, int P, bool Fetch>
void micro_rows(int64_t k, const float* x, const Weights<W>& w, const Sums& c, bool add) {
    constexpr int kAtOnce = P < kPanelsAtOnce ? P : kPanelsAtOnce;
    for (int panel = 0; panel < P; panel += kAtOnce) micro_panels<R, kAtOnce, Fetch, W>(k, x, w, panel, c, add);
}

// The same for any number of rows up to R; x is packed for exactly that many.
template <typename W, int R, int P, bool Fetch>
void micro(int rows, int64_t k, const float* x, const Weights<W>& w, const Sums& c, bool add) {
    if constexpr (R > 1)
        if (rows < R) return micro<W, R - 1, P, Fetch>(rows, k, x, w, c, add);
    micro_rows<W, R, P, Fetch>(k, x, w, c, add);
}

// Four rows of four floats, turned.
typedef float quad __attribute__((vector_size(16)));
inline void turn(quad& a, quad& b, quad& c, quad& d) {
#if defined(__clang__)
    const quad e = __builtin_shufflevector(a, b, 0, 4, 1, 5), f = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const quad g = __builtin_shufflevector(c, d, 0, 4, 1, 5), h = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    a = __builtin_shufflevector(e, g, 0, 1, 4, 5), b = __builtin_shufflevector(e, g, 2, 3, 6, 7);
    c = __builtin_shufflevector(f, h, 0, 1, 4, 5), d = __builtin_shufflevector(f, h, 2, 3, 6, 7);
#else
    typedef int32_t pick __attribute__((vector_size(16)));
    const quad e = __builtin_shuffle(a, b, pick{0, 4, 1, 5}), f = __builtin_shuffle(a, b, pick{2, 6, 3, 7});
    const quad g = __builtin_shuffle(c, d, pick{0, 4, 1, 5}), h = __builtin_shuffle(c, d, pick{2, 6, 3, 7});
    a = __builtin_shuffle(e, g, pick{0, 1, 4, 5}), b = __builtin_shuffle(e, g, pick{2, 3, 6, 7});
    c = __builtin_shuffle(f, h, pick{0, 1, 4, 5}), d = __builtin_shuffle(f, h, pick{2, 3, 6, 7});
#endif
}

inline float as_float(float v) { return v; }
template <typename T>
float as_float(T v) {
    T lanes[kLanes] = {v};
    float wide[kLanes];
    store(wide, load(lanes));
    return wide[0];
}

// `to`[k][count] of fp32 from count rows of k elements: rows[r] points at row r.
template <typename T>
void interleave(const T* const* rows, int count, int64_t k, float* to) {
    int r = 0;
    for (; r + 4 <= count; r += 4) {
        int64_t i = 0;
        for (; i + kLanes <= k; i += kLanes) {
            float lane[4][kLanes];
            const float* from[4];
            for (int j = 0; j < 4; ++j) {
                if constexpr (std::is_same_v<T, float>) {
                    from[j] = rows[r + j] + i;
                } else {
                    store(lane[j], load(rows[r + j] + i));
                    from[j] = lane[j];
                }
            }
            for (int q = 0; q < kLanes; q += 4) {
                quad v[4];
                for (int j = 0; j < 4; ++j) std::memcpy(&v[j], from[j] + q, sizeof v[j]);
                turn(v[0], v[1], v[2], v[3]);
                for (int j = 0; j < 4; ++j) std::memcpy(to + (i + q + j) * count + r, &v[j], sizeof v[j]);
            }
        }
        for (; i < k; ++i)
            for (int j = 0; j < 4; ++j) to[i * count + r + j] = as_float(rows[r + j][i]);
    }
    for (; r < count; ++r) {
        int64_t i = 0;
        for (; i + kLanes <= k; i += kLanes) {
            float lane[kLanes];
            store(lane, load(rows[r] + i));
            for (int j = 0; j < kLanes; ++j) to[(i + j) * count + r] = lane[j];
        }
        for (; i < k; ++i) to[i * count + r] = as_float(rows[r][i]);
    }
}

}  // namespace IVK_ISA
}  // namespace ivk
