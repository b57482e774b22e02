// Output tiles of the CUDA product as data, and the rule that gives a product its tile. Bits do not depend on it.
#pragma once

#include <cstdint>
#include <string>

#include "core/check.h"

namespace ivk {

struct GemmTile {
    const char* name;
    int bm, bn;  // of a block
    int wm, wn;  // of a warp
    int pace;    // percent of the tensor cores' time for the same products
};

// 80 rows: 13 of them are the 1025 of one image tile, nearly. The smaller ones fill the multiprocessors where a product
// is small. pace: what shared memory (128 bytes a clock: copies in, fragments out) and L2 (47 a clock and
// multiprocessor of an A100) need beside 1024 multiply-adds a clock, 75 and 67, 102 and 88, 87 and 101, 125 and 135 in
// this order; never below 100, and a little for what does not overlap.
constexpr GemmTile kGemmTiles[] = {{"128x128", 128, 128, 64, 64, 100},
                                   {"80x128", 80, 128, 80, 32, 106},
                                   {"64x128", 64, 128, 64, 64, 105},
                                   {"64x64", 64, 64, 32, 64, 138}};
constexpr int kGemmTileCount = sizeof(kGemmTiles) / sizeof(kGemmTiles[0]);
constexpr int kGemmStages = 4;      // slices of 32 columns under way
constexpr int kGemmOverhead = 128;  // columns of k that a block's beginning and end cost, about

inline int64_t gemm_blocks(const GemmTile& t, int64_t m, int64_t n) {
    return ((m + t.bm - 1) / t.bm) * ((n + t.bn - 1) / t.bn);
}
constexpr int gemm_threads(const GemmTile& t) { return t.bm / t.wm * (t.bn / t.wn) * 32; }
// Rows that the copies of a slice fill: whole rounds of all threads, four to a row.
constexpr int gemm_copied(const GemmTile& t, int rows) {
    const int round = gemm_threads(t) / 4;
    return (rows + round - 1) / round * round;
}
constexpr int gemm_stage_bytes(const GemmTile& t) { return (gemm_copied(t, t.bm) + gemm_copied(t, t.bn)) * 64; }
constexpr int gemm_shared_bytes(const GemmTile& t) { return kGemmStages * gemm_stage_bytes(t); }

// SwiGLU wants 64 columns a warp: gate and up of the 32 that a row of lanes stores. Two warps alone that copy 192 rows
// have no registers left for it. Its columns are padded to turns of 8.
constexpr bool gemm_takes_gates(const GemmTile& t) { return t.wn % 64 == 0 && 2 * gemm_threads(t) >= t.bm + t.bn; }
inline int64_t gemm_columns(int64_t n, bool gated) { return gated ? (n / 2 + 7) / 8 * 16 : n; }

// What the busiest multiprocessor takes, in multiply-adds at the tensor cores' pace.
inline int64_t gemm_cost(const GemmTile& t, int64_t m, int64_t n, int64_t k, int multiprocessors) {
    const int64_t each = (gemm_blocks(t, m, n) + multiprocessors - 1) / multiprocessors;
    return each * t.bm * t.bn * (k + kGemmOverhead) * t.pace / 100;
}

// The tile with the least cost; the larger one where two cost the same.
inline int choose_gemm_tile(int64_t m, int64_t n, int64_t k, int multiprocessors, bool gated = false) {
    int best = 0;
    for (int i = 1; i < kGemmTileCount; ++i)
        if ((!gated || gemm_takes_gates(kGemmTiles[i])) &&
            gemm_cost(kGemmTiles[i], m, n, k, multiprocessors) < gemm_cost(kGemmTiles[best], m, n, k, multiprocessors))
            best = i;
    return best;
}

inline int gemm_tile_named(const std::string& name) {
    std::string all;
    for (int i = 0; i < kGemmTileCount; ++i) {
        if (name == kGemmTiles[i].name) return i;
        all += std::string(i ? ", " : "") + kGemmTiles[i].name;
    }
    throw UnsupportedError("gemm: tile is " + name + "; allowed: " + all);
}

}  // namespace ivk
