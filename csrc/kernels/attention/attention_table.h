// What attention.cpp asks of each instruction set's kernels.
#pragma once

#include <algorithm>

#include "kernels/attention/attention_cached.h"

namespace ivk {

// Queries that a thread takes at once: 1,280 of dimension 64.
constexpr int64_t most_queries(int64_t dim) { return std::max(kTile, 81920 / dim / kTile * kTile); }
// Lanes beyond the queries: up to the end of a tile, and a tile that stays empty.
constexpr int64_t attention_lanes(int64_t queries) { return (queries + kTile - 1) / kTile * kTile + kTile; }
// Floats: queries and results, a block of keys, values and scores, a tile on its way out, each lane's maximum and sum.
constexpr int64_t attention_scratch(int64_t queries, int64_t dim) {
    const int64_t lanes = attention_lanes(queries);
    return (2 * lanes + 2 * kKeyBlock + kTile) * dim + kKeyBlock * kTile + 2 * lanes;
}

// What one call has in common, without its sequences; throws UnsupportedError.
AttentionParams attention_params(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y,
                                 bool causal, double scale, int64_t window, const TensorView* sinks);

// Queries [begin, end) of one key head; query number = row * (Hq / Hkv) + head within the group.
using AttentionPiece = void (*)(const AttentionParams&, const AttentionSequence&, int64_t kv_head, int64_t begin,
                                int64_t end);
struct AttentionTable {
    AttentionPiece f32, bf16, f16;
};
IVK_DECLARE_TABLE(AttentionTable, attention_table)

// Of one sequence's row: key heads [head, head_end) over keys [begin, end). Without `partial` that is all of them, and
// y is written; else every query head's part, decode_width(dim) floats each: sums of values, the maximum, the sum.
struct DecodeRange {
    const AttentionSequence* sequence;
    int64_t head, head_end, begin, end;
    float* partial;
};
constexpr int64_t decode_width(int64_t dim) { return (dim + 15) / 16 * 16 + 16; }
constexpr int64_t decode_scratch(int64_t dim) { return 2 * decode_width(dim) - 32 + kDecodeRange + 16 + 2; }
struct DecodeTable {  // of f32, bf16, f16
    void (*range[3])(const AttentionParams&, const DecodeRange&);
    // One query head's parts of `ranges` ranges, one after the other, into y.
    void (*join[3])(const AttentionParams&, const AttentionSequence&, int64_t head, const float* parts, int64_t ranges);
};
IVK_DECLARE_TABLE(DecodeTable, decode_table)

}  // namespace ivk
