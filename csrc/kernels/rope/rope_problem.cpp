#include <algorithm>
#include <sstream>
#include <vector>

#include "core/check.h"
#include "kernels/rope/rope.h"

namespace ivk {
namespace {

template <typename... Parts>
void check(bool condition, const char* name, const TensorView& v, const Parts&... allowed) {
    if (!condition) detail::refuse("qkv_rope: ", name, " is ", v, "; allowed: ", allowed...);
}

// Rows (and heads) whose elements lie apart, the last dimension dense.
bool rows_apart(const TensorView& v) {
    const int64_t d = v.shape[v.ndim - 1];
    if (v.numel() == 0) return true;
    if (d > 1 && v.stride[v.ndim - 1] != 1) return false;
    const int64_t row = v.shape[0] > 1 ? v.stride[0] : INT64_MAX;
    if (v.ndim == 2) return row >= d;
    const int64_t head = v.shape[1] > 1 ? v.stride[1] : d;
    if (head < d || row < d) return false;
    return row >= (v.shape[1] - 1) * head + d || head >= (v.shape[0] - 1) * row + d;
}

// [rows, heads, d] as rows that hold their heads, or heads that hold their rows, whichever lie apart: what tells views
// of one buffer from views that share elements.
TensorView blocks(const TensorView& v) {
    const int outer = v.stride[0] >= v.stride[1] ? 0 : 1, inner = 1 - outer;
    TensorView flat{v.data, v.dtype, 2, {v.shape[outer], (v.shape[inner] - 1) * v.stride[inner] + v.shape[2]}};
    flat.stride[0] = v.stride[outer];
    flat.stride[1] = 1;
    return flat;
}

bool floating(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

void check_slots(const TensorView& slots, int64_t available) {
    const auto slot = [&](int64_t r) { return slots.as<const int64_t>()[r * slots.stride[0]]; };
    bool ascending = true;
    for (int64_t r = 0; r < slots.shape[0]; ++r) {
        require(slot(r) >= 0 && slot(r) < available, "qkv_rope: slots[", r, "] is ", slot(r), "; allowed: 0 to ",
                available - 1);
        ascending = ascending && (r == 0 || slot(r) > slot(r - 1));
    }
    if (ascending) return;
    std::vector<int64_t> sorted(slots.shape[0]);
    for (int64_t r = 0; r < slots.shape[0]; ++r) sorted[r] = slot(r);
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    require(twice == sorted.end(), "qkv_rope: slots name ", twice == sorted.end() ? 0 : *twice,
            " twice; allowed: each slot once");
}

}  // namespace

RopeParams rope_problem(const TensorView& qkv, const TensorView& cos, const TensorView& sin, const TensorView& q_weight,
                        const TensorView& k_weight, const TensorView& q, const TensorView& k, const TensorView& v,
                        const TensorView& slots, float eps, bool slots_on_host) {
    check(qkv.ndim == 2 && floating(qkv.dtype) && rows_apart(qkv), "qkv", qkv,
          "[rows, cols] float32, bfloat16 or float16, last dimension contiguous");
    const int64_t rows = qkv.shape[0], d = q.shape[2];
    check(q.ndim == 3 && q.shape[0] == rows && q.shape[1] >= 1 && d >= 2 && d % 2 == 0 && q.dtype == qkv.dtype &&
              q.contiguous(),
          "q", q, "contiguous [rows, heads, even head_dim] of qkv's dtype ", name_of(qkv.dtype));
    for (const auto& [name, cache] : {std::pair{"k", k}, std::pair{"v", v}}) {
        check(cache.ndim == 3 && cache.shape[0] == (slots.defined() ? k.shape[0] : rows) &&
                  cache.shape[1] == k.shape[1] && cache.shape[2] == d && cache.dtype == k.dtype && floating(k.dtype) &&
                  rows_apart(cache),
              name, cache, "[rows or slots, kv heads, ", d,
              "] of one dtype, float32, bfloat16 or float16; last dimension contiguous");
    }
    check(k.shape[1] >= 1 && qkv.shape[1] == (q.shape[1] + 2 * k.shape[1]) * d, "qkv", qkv, "(", q.shape[1], " + 2 * ",
          k.shape[1], ") * ", d, " columns");
    require(k.numel() == 0 || !overlap(blocks(k), blocks(v)), "qkv_rope: k and v share memory; allowed: apart");
    for (const auto& [name, in] :
         {std::pair{"qkv", qkv}, std::pair{"cos", cos}, std::pair{"sin", sin}, std::pair{"q_weight", q_weight},
          std::pair{"k_weight", k_weight}, std::pair{"slots", slots}})
        require(!overlap(q, in) && !overlap(k, in) && !overlap(v, in), "qkv_rope: ", name,
                " shares memory with q, k or v; allowed: apart");
    require(!overlap(q, k) && !overlap(q, v), "qkv_rope: q shares memory with k or v; allowed: apart");
    for (const auto& [name, table] : {std::pair{"cos", cos}, std::pair{"sin", sin}})
        check(table.ndim == 2 && table.shape[0] == rows && table.shape[1] == d / 2 && table.dtype == DType::f32 &&
                  rows_apart(table),
              name, table, "float32 [", rows, ", ", d / 2, "], last dimension contiguous");
    require(q_weight.defined() == k_weight.defined(),
            "qkv_rope: one of q_weight and k_weight is absent; allowed: both or neither");
    if (q_weight.defined()) {
        for (const auto& [name, weight] : {std::pair{"q_weight", q_weight}, std::pair{"k_weight", k_weight}})
            check(weight.ndim == 1 && weight.shape[0] == d && weight.dtype == qkv.dtype && weight.contiguous(), name,
                  weight, "contiguous [", d, "] of qkv's dtype");
        require(eps > 0.0f, "qkv_rope: eps is ", eps, "; allowed: greater than 0");
    }
    if (slots.defined()) {
        check(slots.ndim == 1 && slots.shape[0] == rows && slots.dtype == DType::i64, "slots", slots, "int64 [", rows,
              "]");
        if (slots_on_host) check_slots(slots, k.shape[0]);
    }

    return {qkv.data,        cos.as<float>(), sin.as<float>(),
            q_weight.data,   k_weight.data,   q.data,
            k.data,          v.data,          slots.as<int64_t>(),
            q.shape[1],      k.shape[1],      d,
            qkv.stride[0],   cos.stride[0],   sin.stride[0],
            slots.stride[0], k.stride[0],     k.stride[1],
            v.stride[0],     v.stride[1],     eps,
            qkv.dtype,       k.dtype,         rows,
            k.shape[0]};
}

std::string describe(const RopeParams& p) {
    std::ostringstream text;
    text << "qkv_rope of " << p.rows << " rows of " << p.heads << " + 2 * " << p.kv_heads << " heads of " << p.head_dim
         << ", " << name_of(p.dtype) << " to " << name_of(p.kv_dtype) << (p.q_weight ? ", q and k normed" : "")
         << ", row strides qkv " << p.stride_qkv << " cos " << p.stride_cos << " sin " << p.stride_sin << " k "
         << p.stride_k << " v " << p.stride_v << ", head strides k " << p.stride_k_head << " v " << p.stride_v_head
         << ", addresses qkv " << p.qkv << " q " << p.q << " k " << p.k << " v " << p.v;
    return text.str();
}

}  // namespace ivk
