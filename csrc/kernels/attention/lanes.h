// The innermost loops of decoding: a few rows of keys or values against query heads. Include only from
// attention_decode_cpu.cpp, after the vectors.
#pragma once

#include "kernels/attention/attention.h"

namespace ivk {
namespace IVK_ISA {
namespace {

constexpr int kKeys = 4, kValues = 4;  // rows at once of keys, and of values
// Query heads at once: as many accumulators as registers hold.
constexpr int kScoreHeads = kParts == 1 ? 4 : 1;
constexpr int kMixHeads = kParts == 1 ? 4 : 2;
constexpr int kMixColumns = kParts == 1 ? 8 : 4;  // registers of d

// Rows that will be read next, fetched meanwhile; `size` is an element's.
struct Ahead {
    const char* const* rows;
    int64_t size;
    void fetch(int64_t key, int64_t element) const { __builtin_prefetch(rows[key] + element * size); }
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

// to[head * kDecodeBlock + key] of H heads and four keys: sums of 16 chains over `wide` elements.
template <int H>
void score(const float* const* rows, const float* q, int64_t wide, float* to, const Ahead& ahead) {
    native_f32 sum[H][kKeys][kParts];
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
        for (int j = 0; j < kKeys; ++j)
#pragma GCC unroll 16
            for (int part = 0; part < kParts; ++part) sum[h][j][part] = native_f32{};
    const float *const a = rows[0], *const b = rows[1], *const c = rows[2], *const d = rows[3];
    for (int64_t i = 0; i < wide; i += kLanes) {
#pragma GCC unroll 16
        for (int j = 0; j < kKeys; ++j) ahead.fetch(j, i);
#pragma GCC unroll 16
        for (int part = 0; part < kParts; ++part) {
            const int64_t from = i + part * kNative;
            const native_f32 k[kKeys] = {part_of(a + from, 0), part_of(b + from, 0), part_of(c + from, 0),
                                         part_of(d + from, 0)};
#pragma GCC unroll 16
            for (int h = 0; h < H; ++h) {
                const native_f32 x = part_of(q + h * wide + from, 0);
#pragma GCC unroll 16
                for (int j = 0; j < kKeys; ++j) sum[h][j][part] = multiply_add(x, k[j], sum[h][j][part]);
            }
        }
    }
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h) {
        quad x[kKeys] = {fold(sum[h][0]), fold(sum[h][1]), fold(sum[h][2]), fold(sum[h][3])};
        turn(x[0], x[1], x[2], x[3]);
        const quad all = (x[0] + x[2]) + (x[1] + x[3]);
        std::memcpy(to + h * kDecodeBlock, &all, sizeof all);
    }
}

// o[head * wide + i] += the chain over keys of weights[head * kDecodeBlock + key] * rows[key][i], C registers of i.
template <int H, int C>
void mix(const float* const* rows, int64_t from, int64_t count, const float* weights, int64_t wide, float* o,
         const Ahead& ahead) {
    native_f32 sum[H][C];
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) sum[h][c] = part_of(o + h * wide + from, c);
    for (int64_t key = 0; key < count; ++key) {
        const float* row = rows[key] + from;
#pragma GCC unroll 16
        for (int c = 0; c < C; c += kParts) ahead.fetch(key, from + c * kNative);
        native_f32 v[C];
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) v[c] = part_of(row, c);
#pragma GCC unroll 16
        for (int h = 0; h < H; ++h) {
            const native_f32 weight = weights[h * kDecodeBlock + key] - native_f32{};
#pragma GCC unroll 16
            for (int c = 0; c < C; ++c) sum[h][c] = multiply_add(weight, v[c], sum[h][c]);
        }
    }
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) std::memcpy(o + h * wide + from + c * kNative, &sum[h][c], sizeof sum[h][c]);
}
template <int H, int C = kMixColumns * 2 / (H < 2 ? 2 : H)>
void mix_row(const float* const* rows, int64_t from, int64_t count, const float* weights, int64_t wide, float* o,
             const Ahead& ahead) {
    for (; from + C * kNative <= wide; from += C * kNative) mix<H, C>(rows, from, count, weights, wide, o, ahead);
    if constexpr (C > 1)
        if (from < wide) mix_row<H, C / 2>(rows, from, count, weights, wide, o, ahead);
}

// body(first, H) over `heads` heads in groups of at most kMost.
template <int kMost, typename F>
void in_groups(int64_t heads, F&& body) {
    int64_t h = 0;
    for (; h + kMost <= heads; h += kMost) body(h, std::integral_constant<int, kMost>());
    if constexpr (kMost > 2)
        for (; h + 2 <= heads; h += 2) body(h, std::integral_constant<int, 2>());
    if constexpr (kMost > 1)
        for (; h < heads; ++h) body(h, std::integral_constant<int, 1>());
}

// Elements [0, dim) of T as fp32, zeros up to `wide`.
template <typename T>
void widen_row(const T* from, int64_t dim, float* to) {
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) store(to + i, load(from + i));
    if (i < dim) store(to + i, load_tail(from + i, dim - i));
}

}  // namespace
}  // namespace IVK_ISA
}  // namespace ivk
