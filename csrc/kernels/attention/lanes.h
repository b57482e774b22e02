// The innermost loops of decoding: a row of keys or values against the query heads that share it. Lanes lie over d.
// Include only from attention_decode_cpu.cpp, after the vectors.
#pragma once

#include "kernels/attention/attention.h"

namespace ivk {
namespace IVK_ISA {
namespace {

// Query heads at once: as many sums as registers hold.
constexpr int kMostHeads = kParts == 1 ? 8 : kParts == 2 ? 4 : 2;

// A row of keys or values with `heads` heads, `apart` elements between them, and the row that is fetched meanwhile.
template <typename K>
struct Row {
    const K* now;
    int64_t apart;
    const K* next;
    int64_t next_apart, heads;
};

// Fixed tree of sum(), down to four lanes.
inline quad fold(const native_f32 (&v)[kParts]) {
#if defined(__AVX512F__)
    const __m256 half = _mm512_maskz_extractf32x8_ps(0xff, v[0], 0) + _mm512_maskz_extractf32x8_ps(0xff, v[0], 1);
    return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
#elif defined(__AVX__)
    const __m256 half = v[0] + v[1];
    return _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

// body(element, lanes) over d, which is V whole vectors, or any number where V is 0.
template <int V, typename F>
inline void over(int64_t dim, F&& body) {
    constexpr std::integral_constant<int64_t, kLanes> whole;
    if constexpr (V > 0) {
#pragma GCC unroll 8
        for (int64_t i = 0; i < V * kLanes; i += kLanes) body(i, whole);
    } else {
        int64_t i = 0;
        for (; i + kLanes <= dim; i += kLanes) body(i, whole);
        if (i < dim) body(i, dim - i);
    }
}

// For each head of the row: four partial sums of H queries' products with it, 16 chains over d. to[query * 4], and
// `step` queries, `wide` elements each, to the next head's.
template <int H, int V, typename K>
void score(Row<K> row, const float* q, int64_t dim, int64_t wide, int64_t step, quad* to) {
    for (int64_t head = 0; head < row.heads; ++head) {
        native_f32 sum[H][kParts];
#pragma GCC unroll 8
        for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
            for (int part = 0; part < kParts; ++part) sum[h][part] = native_f32{};
        over<V>(dim, [&](int64_t i, auto lanes) {
            __builtin_prefetch(row.next + i);
            const f32x16 k = at(row.now + i, lanes);
#pragma GCC unroll 8
            for (int h = 0; h < H; ++h) {
                const f32x16 x = load(q + h * wide + i);
#pragma GCC unroll 4
                for (int part = 0; part < kParts; ++part)
                    sum[h][part] = multiply_add(x.part[part], k.part[part], sum[h][part]);
            }
        });
#pragma GCC unroll 8
        for (int h = 0; h < H; ++h) to[h * 4] = fold(sum[h]);
        row.now += row.apart, row.next += row.next_apart, q += step * wide, to += step * 4;
    }
}

// For each head of the row: o[query][wide] += weights[query * kDecodeRange] * row, H queries, `step` to the next
// head's.
template <int H, int V, typename K>
void mix(Row<K> row, const float* weights, int64_t dim, int64_t wide, int64_t step, float* o) {
    for (int64_t head = 0; head < row.heads; ++head) {
        f32x16 weight[H];
#pragma GCC unroll 8
        for (int h = 0; h < H; ++h) weight[h] = f32x16::broadcast(weights[h * kDecodeRange]);
        over<V>(dim, [&](int64_t i, auto lanes) {
            __builtin_prefetch(row.next + i);
            const f32x16 v = at(row.now + i, lanes);
#pragma GCC unroll 8
            for (int h = 0; h < H; ++h) {
                float* const to = o + h * wide + i;
                store(to, multiply_add(weight[h], v, load(to)));
            }
        });
        row.now += row.apart, row.next += row.next_apart, weights += step * kDecodeRange, o += step * wide;
    }
}

// body(first, H) over `heads` heads in groups of at most kMost.
template <int kMost = kMostHeads, typename F>
void in_groups(int64_t heads, F&& body) {
    int64_t h = 0;
    for (; h + kMost <= heads; h += kMost) body(h, std::integral_constant<int, kMost>());
    if constexpr (kMost > 1)
        if (h < heads) in_groups<kMost / 2>(heads - h, [&](int64_t rest, auto count) { body(h + rest, count); });
}

// Elements [0, dim) of T as fp32, zeros up to `wide`.
template <typename T>
void widen_row(const T* from, int64_t dim, float* to) {
    for_lanes(dim, [&](int64_t i, int64_t lanes) { store(to + i, at(from + i, lanes)); });
}

}  // namespace
}  // namespace IVK_ISA
}  // namespace ivk
