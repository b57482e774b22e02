// Scaled dot-product attention of several sequences: y = softmax(scale * q k^T) v per head, keys shared in groups
// (GQA).
//
//   name   shape              dtype              notes
//   q, y   [rows, Hq, d]      f32 | bf16 | f16   a sequence's rows; d contiguous, any strides of rows and heads
//   k, v   [keys, Hkv, d]     as q               a sequence's keys; the same; Hq a multiple of Hkv, d from 1 to 256
//   sinks  [Hq]               as q               or none; contiguous
//
// causal: the rows are the last ones of the sequence, and row i sees keys 0 .. keys - rows + i. Head h reads key head
// h / (Hq / Hkv). y is apart from q, k and v.
// window > 0 (with causal): a row sees the last `window` of those keys, its own among them; 0: all. sinks: head h's
// logit joins the sum of its softmax, unscaled and without a value: y = sum(e^s v) / (e^sink + sum(e^s)).
//
// All arithmetic in fp32, one rounding at the store. Scores are chains of fused multiply-adds over d; keys are taken in
// blocks of kKeyBlock counted from the sequence's first, with the running maximum and sum of each row (online softmax);
// within a block the products with v are a chain over the keys. So a row's bits depend on its own q, on the keys it
// sees and on whether the ISA level fuses, not on the rows beside it, the chunk that brings it, or the threads. Keys
// that no row of the call sees are not read; one that some rows see is multiplied by 0 for the others, so a NaN or Inf
// in v reaches the rows of its block.
//
// Floor: 4 * rows * seen keys * d * Hq flops; bytes (2 rows Hq + 2 keys Hkv) * d * s. Workspace: per thread
// attention_scratch(queries taken at once, d) floats, kept by the thread for the next call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/isa.h"
#include "core/panels.h"
#include "core/tensor.h"

namespace ivk {

constexpr int64_t kKeyBlock = 192;  // a multiple of every micro-kernel's rows
constexpr int64_t kMostHeadDim = 256;
constexpr int64_t kMostQueries = 81920;  // times d: a thread's piece, 1,280 queries of 64

constexpr int64_t most_queries(int64_t dim) { return std::max(kTile, kMostQueries / dim / kTile * kTile); }
// Lanes beyond the queries: up to the end of a tile, and a tile that stays empty.
constexpr int64_t attention_lanes(int64_t queries) { return (queries + kTile - 1) / kTile * kTile + kTile; }
// Floats: queries and results, a block of keys, of values and of scores, a tile on its way out, and each lane's maximum
// and sum.
constexpr int64_t attention_scratch(int64_t queries, int64_t dim) {
    const int64_t lanes = attention_lanes(queries);
    return (2 * lanes + 2 * kKeyBlock + kTile) * dim + kKeyBlock * kTile + 2 * lanes;
}

struct AttentionSequence {
    const void *q, *k, *v;
    void* y;
    int64_t rows, keys;
};

struct AttentionParams {
    std::vector<AttentionSequence> sequences;
    DType dtype;
    int64_t heads, kv_heads, dim;
    // Elements between rows and between heads.
    int64_t q_row, q_head, k_row, k_head, v_row, v_head, y_row, y_head;
    float scale;
    bool causal;
    int64_t window;     // 0: none
    const void* sinks;  // of dtype, or null
};

// Queries [begin, end) of one key head; query number = row * (Hq / Hkv) + head within the group.
using AttentionPiece = void (*)(const AttentionParams&, const AttentionSequence&, int64_t kv_head, int64_t begin,
                                int64_t end);
struct AttentionTable {
    AttentionPiece f32, bf16, f16;
};
IVK_DECLARE_TABLE(AttentionTable, attention_table)

// q, y [B, L, Hq, d], k, v [B, S, Hkv, d].
void attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y, bool causal,
               double scale, int64_t window, const TensorView* sinks, int threads);

// A sequence whose rows are [row_begin, row_end) of q, the last of `length` positions whose keys lie at
// [slot_begin, slot_begin + length) of the caches.
struct AttentionSpan {
    int64_t row_begin, row_end, slot_begin, length;
};
// q, y [rows, Hq, d], k_cache, v_cache [slots, Hkv, d]; causal.
void cached_attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache, const TensorView& y,
                      const std::vector<AttentionSpan>& spans, double scale, int64_t window, const TensorView* sinks,
                      int threads);

}  // namespace ivk
