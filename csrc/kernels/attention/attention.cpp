#include <algorithm>
#include <memory>
#include <utility>

#include "core/check.h"
#include "core/parallel.h"
#include "kernels/attention/attention_table.h"

namespace ivk {
namespace {

const void* at(const TensorView& v, int64_t offset) { return v.as<const char>() + offset * size_of(v.dtype); }

struct Work {
    const AttentionSequence* sequence;
    int64_t kv_head, begin, end;
};

void run(const AttentionParams& p, int threads) {
    const AttentionTable& table = IVK_SELECT(attention_table);
    const AttentionPiece piece = p.dtype == DType::f32 ? table.f32 : p.dtype == DType::bf16 ? table.bf16 : table.f16;
    // As many queries at once as keep their results near, since each piece turns its keys and values again; fewer where
    // threads would have none.
    const int64_t cap = threads == 0 ? default_threads() : threads, group = p.heads / p.kv_heads;
    int64_t all = 0;
    for (const AttentionSequence& s : p.sequences) all += s.rows * p.heads;
    const int64_t share = (all / (4 * cap) + kTile - 1) / kTile * kTile;
    const int64_t most = std::min(most_queries(p.dim), std::max(share, 8 * kTile));
    std::vector<Work> work;
    for (const AttentionSequence& s : p.sequences) {
        const int64_t queries = s.rows * group, pieces = (queries + most - 1) / most;
        for (int64_t head = 0; head < p.kv_heads; ++head)
            for (int64_t i = 0, begin = 0; i < pieces; ++i) {
                const int64_t end = std::min(queries, ((i + 1) * queries / pieces + kTile - 1) / kTile * kTile);
                if (begin < end) work.push_back({&s, head, begin, end});
                begin = end;
            }
    }
    parallel_for(int64_t(work.size()), 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) piece(p, *work[i].sequence, work[i].kv_head, work[i].begin, work[i].end);
    });
}

constexpr int64_t kFewPartials = 1 << 15;  // floats

// Heads of a range for one thread: all, or as many as keep most threads busy most of the time.
int64_t heads_at_once(int64_t ranges, int64_t heads, int64_t threads) {
    int64_t best = heads;
    double most = 0;
    for (int64_t parts = 1; parts <= heads; parts *= 2) {
        const int64_t at_once = (heads + parts - 1) / parts, work = ranges * ((heads + at_once - 1) / at_once);
        const double busy = double(work) / double((work + threads - 1) / threads * threads);
        if (busy > most) most = busy, best = at_once;
        if (most > 0.8) break;
    }
    return best;
}

// Ranges of keys are a matter of the sequence alone; heads, which are apart in any case, even out the work of threads.
void run_decode(const AttentionParams& p, int threads) {
    const DecodeTable& table = IVK_SELECT(decode_table);
    const int type = p.dtype == DType::f32 ? 0 : p.dtype == DType::bf16 ? 1 : 2;
    const auto from = [&](const AttentionSequence& s) {
        return p.window ? std::max<int64_t>(0, s.keys - p.window) : int64_t{0};
    };
    const auto ranges = [&](const AttentionSequence& s) {
        return (s.keys + kDecodeRange - 1) / kDecodeRange - from(s) / kDecodeRange;
    };
    int64_t all = 0, parts = 0;
    for (const AttentionSequence& s : p.sequences) {
        all += ranges(s);
        parts += ranges(s) > 1 ? ranges(s) : 0;
    }
    const int64_t wanted = threads == 0 ? default_threads() : threads, width = p.heads * decode_width(p.dim);
    const int64_t at_once = heads_at_once(all, p.kv_heads, wanted);
    const std::unique_ptr<float[]> partials(parts ? new float[parts * width] : nullptr);
    std::vector<DecodeRange> work;
    work.reserve(all * ((p.kv_heads + at_once - 1) / at_once));
    std::vector<std::pair<const AttentionSequence*, const float*>> split;
    float* partial = partials.get();
    for (const AttentionSequence& s : p.sequences) {
        const bool whole = ranges(s) == 1;
        if (!whole) split.push_back({&s, partial});
        for (int64_t begin = from(s); begin < s.keys;) {
            const int64_t end = std::min((begin / kDecodeRange + 1) * kDecodeRange, s.keys);
            for (int64_t head = 0; head < p.kv_heads; head += at_once)
                work.push_back({&s, head, std::min(head + at_once, p.kv_heads), begin, end, whole ? nullptr : partial});
            if (!whole) partial += width;
            begin = end;
        }
    }
    parallel_for(int64_t(work.size()), 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) table.range[type](p, work[i]);
    });
    // Few parts are joined sooner than a thread wakes up.
    const int64_t joins = int64_t(split.size()) * p.heads, grain = parts * width < kFewPartials ? joins : 1;
    parallel_for(joins, grain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const AttentionSequence& s = *split[i / p.heads].first;
            table.join[type](p, s, i % p.heads, split[i / p.heads].second, ranges(s));
        }
    });
}

void check_pages(const AttentionSpan& s, const TensorView& pages, int64_t page_size, int64_t available) {
    const int64_t count = (s.length + page_size - 1) / page_size;
    require(s.slot_begin + count <= pages.shape[0], "attention: a span of ", s.length, " keys from pages[",
            s.slot_begin, "]; allowed: inside the ", pages.shape[0], " pages");
    for (int64_t i = s.slot_begin; i < s.slot_begin + count; ++i) {
        const int64_t page = pages.as<const int64_t>()[i];
        require(0 <= page && page < available, "attention: pages[", i, "] is ", page, "; allowed: 0 to ", available - 1,
                ", whole pages of ", page_size, " slots");
    }
}

}  // namespace

void attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y, bool causal,
               double scale, int64_t window, const TensorView* sinks, int threads) {
    const AttentionBatch all = attention_problem(q, k, v, y, causal, scale, window, sinks);
    AttentionParams p = attention_params(q, k, v, y, causal, scale, window, sinks);
    const int64_t rows = all.rows, keys = all.keys;
    if (rows == 0) return;
    for (int64_t b = 0; b < q.shape[0]; ++b)
        p.sequences.push_back({at(q, b * q.stride[0]), at(k, b * k.stride[0]), at(v, b * v.stride[0]),
                               const_cast<void*>(at(y, b * y.stride[0])), rows, keys, nullptr});
    run(p, threads);
}

void cached_attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache, const TensorView& y,
                      const std::vector<AttentionSpan>& spans, const AttentionOptions& options, int threads) {
    require(q.ndim == 3, "attention: q is ", q, "; allowed: [rows, Hq, d]");
    AttentionParams p = attention_params(q, k_cache, v_cache, y, true, options.scale, options.window, options.sinks);
    const TensorView* pages = options.pages;
    require(!pages || (pages->ndim == 1 && pages->dtype == DType::i64 && pages->contiguous()), "attention: pages is ",
            pages ? *pages : q, "; allowed: contiguous int64 [n]");
    require(!pages || options.page_size >= 1, "attention: page_size is ", options.page_size, "; allowed: 1 and more");
    if (pages) p.page_size = options.page_size;
    p.sequences.reserve(spans.size());
    for (const AttentionSpan& s : spans) {
        const int64_t rows = s.row_end - s.row_begin, first = pages ? 0 : s.slot_begin;
        require(0 <= s.row_begin && 1 <= rows && s.row_end <= q.shape[0] && 0 <= s.slot_begin && rows <= s.length &&
                    (pages || s.slot_begin + s.length <= k_cache.shape[0]) && (!options.decode || rows == 1),
                "attention: a span of rows ", s.row_begin, " to ", s.row_end, " with ", s.length, " keys from slot ",
                s.slot_begin, "; allowed: rows of q, at least as many keys, slots of the caches; one row in decode");
        if (pages) check_pages(s, *pages, p.page_size, k_cache.shape[0] / p.page_size);
        p.sequences.push_back({at(q, s.row_begin * p.q_row), at(k_cache, first * p.k_row), at(v_cache, first * p.v_row),
                               const_cast<void*>(at(y, s.row_begin * p.y_row)), rows, s.length,
                               pages ? pages->as<const int64_t>() + s.slot_begin : nullptr});
    }
    if (options.decode)
        run_decode(p, threads);
    else
        run(p, threads);
}

}  // namespace ivk
