#include "kernels/attention/attention.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

const void* at(const TensorView& v, int64_t offset) { return v.as<const char>() + offset * size_of(v.dtype); }

void check(const char* name, const TensorView& v, int ndim, const TensorView& q) {
    const int64_t dim = v.ndim == ndim ? v.shape[ndim - 1] : 0;
    require(v.ndim == ndim && v.dtype == q.dtype && dim == q.shape[q.ndim - 1] && (dim == 1 || v.stride[ndim - 1] == 1),
            "attention: ", name, " is ", v, "; allowed: ", ndim,
            " dimensions, the last contiguous and as long as q's, ", name_of(q.dtype));
}

AttentionParams problem(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y, bool causal,
                        double scale, int64_t window, const TensorView* sinks) {
    const int n = q.ndim;
    require(n >= 3 && (q.dtype == DType::f32 || q.dtype == DType::bf16 || q.dtype == DType::f16), "attention: q is ", q,
            "; allowed dtypes: float32, bfloat16, float16");
    require(q.shape[n - 1] >= 1 && q.shape[n - 1] <= kMostHeadDim, "attention: q is ", q,
            "; allowed: a head dimension of 1 to ", kMostHeadDim);
    check("q", q, n, q);
    check("k", k, n, q);
    check("v", v, n, q);
    check("y", y, n, q);
    const int64_t heads = q.shape[n - 2], kv_heads = k.shape[n - 2];
    require(kv_heads >= 1 && heads % kv_heads == 0 && v.shape[n - 2] == kv_heads && k.shape[n - 3] == v.shape[n - 3],
            "attention: q is ", q, ", k ", k, ", v ", v,
            "; allowed: k and v of one shape, q's heads a multiple of theirs");
    require(y.shape[n - 2] == heads && y.shape[n - 3] == q.shape[n - 3] && !overlap(y, q) && !overlap(y, k) &&
                !overlap(y, v),
            "attention: y is ", y, "; allowed: q's shape, apart from the inputs");
    require(window >= 0 && (window == 0 || causal), "attention: window is ", window,
            "; allowed: 1 or more with causal, 0 for none");
    require(!sinks || (sinks->ndim == 1 && sinks->shape[0] == heads && sinks->dtype == q.dtype &&
                       (heads == 1 || sinks->stride[0] == 1)),
            "attention: sinks is not one contiguous ", name_of(q.dtype), " for each of ", heads, " heads");
    return {{},
            q.dtype,
            heads,
            kv_heads,
            q.shape[n - 1],
            q.stride[n - 3],
            q.stride[n - 2],
            k.stride[n - 3],
            k.stride[n - 2],
            v.stride[n - 3],
            v.stride[n - 2],
            y.stride[n - 3],
            y.stride[n - 2],
            float(scale),
            causal,
            window,
            sinks ? sinks->as<const void>() : nullptr};
}

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

}  // namespace

void attention(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y, bool causal,
               double scale, int64_t window, const TensorView* sinks, int threads) {
    require(q.ndim == 4, "attention: q is ", q, "; allowed: [B, L, Hq, d]");
    AttentionParams p = problem(q, k, v, y, causal, scale, window, sinks);
    const int64_t rows = q.shape[1], keys = k.shape[1];
    require(k.shape[0] == q.shape[0] && v.shape[0] == q.shape[0] && y.shape[0] == q.shape[0] &&
                (keys >= 1 || rows == 0) && (!causal || rows <= keys),
            "attention: q is ", q, ", k ", k, ", v ", v, ", y ", y,
            "; allowed: one B, at least one key, and no more rows than keys when causal");
    if (rows == 0) return;
    for (int64_t b = 0; b < q.shape[0]; ++b)
        p.sequences.push_back({at(q, b * q.stride[0]), at(k, b * k.stride[0]), at(v, b * v.stride[0]),
                               const_cast<void*>(at(y, b * y.stride[0])), rows, keys});
    run(p, threads);
}

void cached_attention(const TensorView& q, const TensorView& k_cache, const TensorView& v_cache, const TensorView& y,
                      const std::vector<AttentionSpan>& spans, double scale, int64_t window, const TensorView* sinks,
                      int threads) {
    require(q.ndim == 3, "attention: q is ", q, "; allowed: [rows, Hq, d]");
    AttentionParams p = problem(q, k_cache, v_cache, y, true, scale, window, sinks);
    for (const AttentionSpan& s : spans) {
        require(0 <= s.row_begin && s.row_begin < s.row_end && s.row_end <= q.shape[0] && 0 <= s.slot_begin &&
                    s.row_end - s.row_begin <= s.length && s.slot_begin + s.length <= k_cache.shape[0],
                "attention: a span of rows ", s.row_begin, " to ", s.row_end, " with ", s.length, " keys from slot ",
                s.slot_begin, "; allowed: rows of q, at least as many keys, slots of the caches");
        p.sequences.push_back({at(q, s.row_begin * p.q_row), at(k_cache, s.slot_begin * p.k_row),
                               at(v_cache, s.slot_begin * p.v_row), const_cast<void*>(at(y, s.row_begin * p.y_row)),
                               s.row_end - s.row_begin, s.length});
    }
    run(p, threads);
}

}  // namespace ivk
