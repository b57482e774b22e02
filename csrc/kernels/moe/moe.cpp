#include "kernels/moe/moe.h"

#include <vector>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

template <typename... Parts>
void check(bool condition, const char* op, const char* name, const TensorView& v, const Parts&... allowed) {
    if (!condition) detail::refuse(op, ": ", name, " is ", v, "; allowed: ", allowed...);
}

bool floating(const TensorView& v) { return v.dtype == DType::f32 || v.dtype == DType::bf16 || v.dtype == DType::f16; }

bool dense_rows(const TensorView& v) { return v.numel() == 0 || v.shape[1] == 1 || v.stride[1] == 1; }

bool is_i64(const TensorView& v, int64_t n) {
    return v.ndim == 1 && v.shape[0] == n && v.dtype == DType::i64 && v.contiguous();
}

}  // namespace

void moe_route(const TensorView& logits, const TensorView& weights, const TensorView& experts, bool normalize,
               int threads) {
    const char* op = "moe_route";
    check(logits.ndim == 2 && floating(logits) && dense_rows(logits), op, "logits", logits,
          "[n, E] float32, bfloat16 or float16, last dimension contiguous");
    const int64_t n = logits.shape[0], k = weights.shape[1];
    check(weights.ndim == 2 && weights.shape[0] == n && k >= 1 && k <= logits.shape[1] && weights.contiguous() &&
              weights.dtype == logits.dtype,
          op, "weights", weights, "contiguous [", n, ", k from 1 to ", logits.shape[1], "] of logits' dtype");
    check(experts.ndim == 2 && experts.shape[0] == n && experts.shape[1] == k && experts.contiguous() &&
              experts.dtype == DType::i64,
          op, "experts", experts, "contiguous int64 [", n, ", ", k, "]");
    const MoeRouteParams params{logits.data,      weights.data, experts.as<int64_t>(), logits.shape[1], k,
                                logits.stride[0], normalize};
    const MoeTable& table = IVK_SELECT(moe_table);
    const MoeRoute run = logits.dtype == DType::f32    ? table.route_f32
                         : logits.dtype == DType::bf16 ? table.route_bf16
                                                       : table.route_f16;
    parallel_for(n, 1 + (1 << 12) / logits.shape[1], threads,
                 [&](int64_t begin, int64_t end) { run(params, begin, end); });
}

void moe_permute(const TensorView& experts, const TensorView& order, const TensorView& offsets) {
    const char* op = "moe_permute";
    check(experts.ndim == 2 && experts.dtype == DType::i64, op, "experts", experts, "int64 [n, k]");
    const int64_t n = experts.shape[0], k = experts.shape[1], num_experts = offsets.shape[0] - 1;
    check(is_i64(order, n * k), op, "order", order, "contiguous int64 [", n * k, "]");
    check(num_experts >= 1 && is_i64(offsets, num_experts + 1), op, "offsets", offsets,
          "contiguous int64 [num_experts + 1]");
    const auto expert = [&](int64_t t, int64_t j) {
        return experts.as<const int64_t>()[t * experts.stride[0] + j * experts.stride[1]];
    };
    int64_t* start = offsets.as<int64_t>();
    for (int64_t e = 0; e <= num_experts; ++e) start[e] = 0;
    for (int64_t t = 0; t < n; ++t)
        for (int64_t j = 0; j < k; ++j) {
            const int64_t e = expert(t, j);
            require(e >= 0 && e < num_experts, "moe_permute: experts[", t, ", ", j, "] is ", e, "; allowed: 0 to ",
                    num_experts - 1);
            ++start[e + 1];
        }
    for (int64_t e = 0; e < num_experts; ++e) start[e + 1] += start[e];
    std::vector<int64_t> next(start, start + num_experts);
    for (int64_t t = 0; t < n; ++t)
        for (int64_t j = 0; j < k; ++j) order.as<int64_t>()[next[expert(t, j)]++] = t * k + j;
}

void moe_combine(const TensorView& y, const TensorView& weights, const TensorView& order, const TensorView& out,
                 int threads) {
    const char* op = "moe_combine";
    check(y.ndim == 2 && floating(y) && dense_rows(y), op, "y", y,
          "[n * k, H] float32, bfloat16 or float16, last dimension contiguous");
    const int64_t n = weights.shape[0], k = weights.shape[1], choices = n * k;
    check(weights.ndim == 2 && k >= 1 && choices == y.shape[0] && weights.dtype == y.dtype && dense_rows(weights), op,
          "weights", weights, "[n, k] of y's dtype with n * k = ", y.shape[0], ", last dimension contiguous");
    check(is_i64(order, choices), op, "order", order, "contiguous int64 [", choices, "]");
    check(out.ndim == 2 && out.shape[0] == n && out.shape[1] == y.shape[1] && out.dtype == y.dtype && out.contiguous(),
          op, "out", out, "contiguous [", n, ", ", y.shape[1], "] of y's dtype");
    std::vector<int64_t> row_of(choices, -1);
    for (int64_t i = 0; i < choices; ++i) {
        const int64_t choice = order.as<const int64_t>()[i];
        require(choice >= 0 && choice < choices && row_of[choice] < 0, "moe_combine: order[", i, "] is ", choice,
                "; allowed: every number from 0 to ", choices - 1, " once");
        row_of[choice] = i;
    }
    const MoeCombineParams params{y.data, weights.data, row_of.data(), out.data,
                                  k,      y.shape[1],   y.stride[0],   weights.stride[0]};
    const MoeTable& table = IVK_SELECT(moe_table);
    const MoeCombine run = y.dtype == DType::f32    ? table.combine_f32
                           : y.dtype == DType::bf16 ? table.combine_bf16
                                                    : table.combine_f16;
    parallel_for(n, 1 + (1 << 13) / (k * y.shape[1] + 1), threads,
                 [&](int64_t begin, int64_t end) { run(params, begin, end); });
}

}  // namespace ivk
