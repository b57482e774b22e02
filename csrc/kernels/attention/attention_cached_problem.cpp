#include <algorithm>
#include <sstream>

#include "core/check.h"
#include "kernels/attention/attention_table.h"

namespace ivk {

CachedAttention cached_problem(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache,
                               const TensorView& y, const std::vector<AttentionSpan>& spans,
                               const AttentionOptions& options) {
    require(q.ndim == 3, "attention: q is ", q, "; allowed: [rows, Hq, d]");
    const AttentionParams p =
        attention_params(q, k_cache, v_cache, y, true, options.scale, options.window, options.sinks);
    const TensorView* const pages = options.pages;
    require(!pages || (pages->ndim == 1 && pages->dtype == DType::i64 && pages->contiguous()), "attention: pages is ",
            pages ? *pages : q, "; allowed: contiguous int64 [n]");
    require(!pages || options.page_size >= 1, "attention: page_size is ", options.page_size, "; allowed: 1 and more");
    const int64_t rows = q.shape[0], slots = k_cache.shape[0];
    const int64_t size = pages ? options.page_size : 1, room = pages ? pages->shape[0] : slots;
    int64_t next = 0;
    for (const AttentionSpan& s : spans) {
        require(s.row_begin == next && s.row_end > next && s.row_end - s.row_begin <= s.length && s.slot_begin >= 0 &&
                    s.length <= INT32_MAX && s.slot_begin <= room - (s.length + size - 1) / size,
                "attention: a span of rows ", s.row_begin, " to ", s.row_end, ", ", s.length, " keys from ",
                s.slot_begin, "; allowed: rows from ", next, " on, at least as many keys, inside ", room,
                pages ? " pages" : " slots");
        next = s.row_end;
    }
    require(next == rows && rows <= INT32_MAX && room <= INT32_MAX, "attention: spans cover ", next, " of ", rows,
            " rows; allowed: all");
    return {q.data,
            k_cache.data,
            v_cache.data,
            y.data,
            rows,
            slots,
            p.heads,
            p.kv_heads,
            p.dim,
            p.q_row,
            p.q_head,
            p.k_row,
            p.k_head,
            p.v_row,
            p.v_head,
            p.y_row,
            p.y_head,
            p.scale,
            p.dtype,
            p.kv_dtype,
            p.window,
            pages ? options.page_size : 0,
            pages ? pages->as<const int64_t>() : nullptr,
            p.sinks,
            nullptr,
            0};
}

std::string describe(const CachedAttention& p) {
    std::ostringstream text;
    text << "attention of " << p.rows << " rows of " << p.heads << " heads over " << p.slots << " slots of "
         << p.kv_heads << " heads of " << p.dim << ", " << name_of(p.dtype) << " and " << name_of(p.kv_dtype)
         << ", scale " << p.scale;
    if (p.window > 0) text << ", window " << p.window;
    if (p.page_size > 0) text << ", pages of " << p.page_size;
    if (p.sinks != nullptr) text << ", sinks";
    text << ", strides of rows and heads q " << p.q_row << " " << p.q_head << " k " << p.k_row << " " << p.k_head
         << " v " << p.v_row << " " << p.v_head << " y " << p.y_row << " " << p.y_head << ", addresses q " << p.q
         << " k " << p.k << " v " << p.v << " y " << p.y;
    return text.str();
}

std::vector<CachedTile> cached_tiles(const std::vector<AttentionSpan>& spans, int most) {
    std::vector<CachedTile> tiles;
    for (const AttentionSpan& s : spans) {
        const int64_t before = s.length - (s.row_end - s.row_begin);  // keys of the rows that came earlier
        for (int64_t row = s.row_begin; row < s.row_end; row += most)
            tiles.push_back({int(row), int(std::min<int64_t>(most, s.row_end - row)), int(before + row - s.row_begin),
                             int(s.slot_begin)});
    }
    return tiles;
}

}  // namespace ivk
