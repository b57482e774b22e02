// Blocks of queries of the CUDA attention as data, and the rule that gives a problem its block. Bits do not depend on
// it.
#pragma once

#include <cstdint>
#include <string>

#include "core/check.h"

namespace ivk {

struct AttentionTile {
    const char* name;
    int warps;  // of 32 queries; of 16 where heads are wider than kTwoFragments
    int pace;   // percent of the tensor cores' time for the same products
};

// Keys and values come once for a tile. pace: shared memory (128 bytes a clock: copies in, fragments out) is busy 62
// and 75 percent of the tensor cores' time, L2 (47 a clock and multiprocessor of an A100) 34 and 68; a little for what
// does not overlap.
constexpr AttentionTile kAttentionTiles[] = {{"128", 4, 100}, {"64", 2, 106}};
constexpr int kAttentionTileCount = sizeof(kAttentionTiles) / sizeof(kAttentionTiles[0]);
constexpr int kSchedulers = 4;      // of a multiprocessor
constexpr int kTwoFragments = 128;  // the widest heads of which registers hold the results of 32 queries a warp

// Heads of other widths than the towers' have the first tile alone.
constexpr int attention_tile_count(int64_t dim) {
    return dim <= 64 || (dim > 96 && dim <= 128) ? kAttentionTileCount : 1;
}
constexpr int attention_tile_rows(int warps, int dim) { return warps * (dim <= kTwoFragments ? 32 : 16); }
constexpr int attention_keys(int dim) { return dim > 96 && dim <= kTwoFragments ? 48 : 64; }  // of a block
inline int64_t attention_tiles(int64_t rows, int tile_rows) { return (rows + tile_rows - 1) / tile_rows; }

// What the busiest multiprocessor takes, in warps a scheduler: a warp stays with one of the four and its tensor core,
// but the less there is in all, the less they wait for each other. Between the whole number and the mean.
inline int64_t attention_cost(const AttentionTile& t, int64_t rows, int64_t heads, int multiprocessors) {
    const int64_t blocks = attention_tiles(rows, t.warps * 32) * heads;
    const int64_t warps = (blocks + multiprocessors - 1) / multiprocessors * t.warps;
    return (warps + (warps + kSchedulers - 1) / kSchedulers * kSchedulers) * t.pace / (2 * kSchedulers);
}

// heads: of all sequences. The larger one where two cost the same.
inline int choose_attention_tile(int64_t rows, int64_t heads, int multiprocessors) {
    int best = 0;
    for (int i = 1; i < kAttentionTileCount; ++i)
        if (attention_cost(kAttentionTiles[i], rows, heads, multiprocessors) <
            attention_cost(kAttentionTiles[best], rows, heads, multiprocessors))
            best = i;
    return best;
}

inline int attention_tile_named(const std::string& name) {
    std::string all;
    for (int i = 0; i < kAttentionTileCount; ++i) {
        if (name == kAttentionTiles[i].name) return i;
        all += std::string(i ? ", " : "") + kAttentionTiles[i].name;
    }
    throw UnsupportedError("attention: tile is " + name + "; allowed: " + all);
}

}  // namespace ivk
