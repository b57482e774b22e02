#include <sstream>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "kernels/attention/attention_table.h"

namespace ivk {
namespace {

bool floating(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

void check(const char* name, const TensorView& v, int ndim, const TensorView& q, DType dtype) {
    const int64_t dim = v.ndim == ndim ? v.shape[ndim - 1] : 0;
    const bool dense = v.ndim == ndim && (dim == 1 || v.numel() == 0 || v.stride[ndim - 1] == 1);
    require(dense && v.dtype == dtype && dim == q.shape[q.ndim - 1], "attention: ", name, " is ", v,
            "; allowed: ", ndim, " dimensions, the last contiguous and as long as q's, ", name_of(dtype));
}

AttentionNormParams checked_norm(const AttentionNorm& norm, const TensorView& q, const TensorView& k,
                                 const TensorView& y) {
    const bool any = norm.weight.defined() || norm.q_factor.defined() || norm.k_factor.defined();
    if (!any) return {};
    const auto one = [&](const char* name, const TensorView& v, int64_t first, int64_t second) {
        require(v.ndim == 2 && v.dtype == DType::f32 && v.shape[0] == first && v.shape[1] == second && v.contiguous() &&
                    !overlap(v, y),
                "attention: ", name, " is ", v, "; allowed: contiguous float32 [", first, ", ", second,
                "], apart from y; q_factor, k_factor and weight come together");
        return v.as<const float>();
    };
    return {one("q_factor", norm.q_factor, q.shape[0], q.shape[1]),
            one("k_factor", norm.k_factor, k.shape[0], k.shape[1]), one("weight", norm.weight, q.shape[2], q.shape[3])};
}

}  // namespace

AttentionParams attention_params(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y,
                                 bool causal, double scale, int64_t window, const TensorView* sinks) {
    const int n = q.ndim;
    for (const auto& [name, x] : {std::pair{"q", q}, std::pair{"k", k}})
        require(n >= 3 && floating(x.dtype), "attention: ", name, " is ", x,
                "; allowed dtypes: float32, bfloat16, float16");
    require(q.shape[n - 1] >= 1 && q.shape[n - 1] <= kMostHeadDim, "attention: q is ", q,
            "; allowed: a head dimension of 1 to ", kMostHeadDim);
    check("q", q, n, q, q.dtype);
    check("k", k, n, q, k.dtype);
    check("v", v, n, q, k.dtype);
    check("y", y, n, q, q.dtype);
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
                       (heads == 1 || sinks->stride[0] == 1) && !overlap(*sinks, y)),
            "attention: sinks is not one contiguous ", name_of(q.dtype), " for each of ", heads,
            " heads, apart from y");
    return {{},
            q.dtype,
            k.dtype,
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
            1,
            sinks ? sinks->as<const void>() : nullptr};
}

AttentionBatch attention_problem(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& y,
                                 bool causal, double scale, int64_t window, const TensorView* sinks,
                                 const AttentionNorm& norm) {
    require(q.ndim == 4, "attention: q is ", q, "; allowed: [B, L, Hq, d]");
    const AttentionParams p = attention_params(q, k, v, y, causal, scale, window, sinks);
    const int64_t batch = q.shape[0], rows = q.shape[1], keys = k.shape[1];
    require(k.shape[0] == batch && v.shape[0] == batch && y.shape[0] == batch && (keys >= 1 || rows == 0) &&
                (!causal || rows <= keys),
            "attention: q is ", q, ", k ", k, ", v ", v, ", y ", y,
            "; allowed: one B, at least one key, and no more rows than keys when causal");
    return {q.data,
            k.data,
            v.data,
            y.data,
            batch,
            rows,
            keys,
            p.heads,
            p.kv_heads,
            p.dim,
            {q.stride[0], p.q_row, p.q_head},
            {k.stride[0], p.k_row, p.k_head},
            {v.stride[0], p.v_row, p.v_head},
            {y.stride[0], p.y_row, p.y_head},
            p.scale,
            p.dtype,
            p.kv_dtype,
            causal,
            window,
            p.sinks,
            checked_norm(norm, q, k, y)};
}

std::string describe(const AttentionBatch& p) {
    std::ostringstream text;
    text << "attention of " << p.batch << " sequences, " << p.rows << " rows of " << p.heads << " heads over " << p.keys
         << " keys of " << p.kv_heads << " heads of " << p.dim << ", " << name_of(p.dtype) << " and "
         << name_of(p.kv_dtype) << (p.causal ? ", causal" : "");
    if (p.window > 0) text << ", window " << p.window;
    if (p.sinks != nullptr) text << ", sinks";
    if (p.norm.weight != nullptr) text << ", q and k normed";
    for (const auto& [name, data, at] : {std::tuple{"q", p.q, p.of_q}, std::tuple{"k", p.k, p.of_k},
                                         std::tuple{"v", p.v, p.of_v}, std::tuple{"y", (const void*)p.y, p.of_y}})
        text << ", " << name << " at " << data << " strides " << at.batch << " " << at.row << " " << at.head;
    return text.str();
}

}  // namespace ivk
