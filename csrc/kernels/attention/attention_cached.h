// Attention over slot caches: contract in attention.h.
//
// CUDA (attention_sm80, compute capability 8.0 and newer): caches of q's dtype, bf16 or f16, d up to 256, scale >= 0;
// pages of a power of 2 slots, 64 and more. Prefill: products, blocks of keys and roundings as attention.h says, every
// row's by itself: a row's bits depend on its own q and on the keys it sees, not on the span that brings it. Spans are
// cut into tiles of rows on the host (cached_tiles); what lies in `pages` is not looked at.
//
// Floor: flops as attention.h; bytes of each head of q, y once, and of each sequence's keys and values that its rows
// see.
#pragma once

#include <string>
#include <vector>

#include "kernels/attention/attention.h"

namespace ivk {

// A sequence whose rows are [row_begin, row_end) of q, the last of `length` positions whose keys lie at
// [slot_begin, slot_begin + length) of the caches; with pages, slot_begin is where its pages begin.
struct AttentionSpan {
    int64_t row_begin, row_end, slot_begin, length;
};
struct AttentionOptions {
    double scale;
    int64_t window = 0;
    const TensorView* sinks = nullptr;
    bool decode = false;
    const TensorView* pages = nullptr;
    int64_t page_size = 0;
};
// q, y [rows, Hq, d], k_cache, v_cache [slots, Hkv, d]; causal.
void cached_attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache, const TensorView& y,
                      const std::vector<AttentionSpan>& spans, const AttentionOptions& options, int threads);

// Rows [row, row + rows) of q, of which the first stands at `position` of its sequence; slot: a span's slot_begin.
struct CachedTile {
    int row, rows, position, slot;
};
// The same for the CUDA kernels; `tiles` in GPU memory.
struct CachedAttention {
    const void *q, *k, *v;
    void* y;
    int64_t rows, slots, heads, kv_heads, dim;
    int64_t q_row, q_head, k_row, k_head, v_row, v_head, y_row, y_head;  // elements
    float scale;
    DType dtype, kv_dtype;
    int64_t window, page_size;  // 0: none
    const int64_t* pages;
    const void* sinks;
    const CachedTile* tiles;
    int tile_count;
};
// Checked, spans included; throws UnsupportedError. tiles and tile_count are the caller's to set.
CachedAttention cached_problem(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                               const TensorView& y, const std::vector<AttentionSpan>& spans,
                               const AttentionOptions& options);
std::string describe(const CachedAttention&);
// Of at most `most` rows each, in the order of the spans.
std::vector<CachedTile> cached_tiles(const std::vector<AttentionSpan>& spans, int most);
int cached_tile_rows(int64_t dim);
bool supports_attention_sm80_causal(const CachedAttention&, const Device&, std::string* why);
void attention_sm80_causal(const CachedAttention&, Stream);
void cached_attention_cuda(const CachedAttention&, const Device&, Stream);

}  // namespace ivk
