// Attention over slot caches: contract in attention.h.
#pragma once

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

}  // namespace ivk
