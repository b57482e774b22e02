#include "kernels/gemm/gemm_few_rows.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {

void gemm_few_rows(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y,
                   int threads) {
    require(x.ndim == 2 && weight.ndim == 2 && y.ndim == 2 && x.shape[1] == weight.shape[1] && x.shape[1] >= 1 &&
                y.shape[0] == x.shape[0] && y.shape[1] == weight.shape[0],
            "gemm_few_rows: x is ", x, ", weight ", weight, ", y ", y,
            "; allowed: [M, K], [N, K] and [M, N] with K >= 1");
    require(x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f16, "gemm_few_rows: x is ", x,
            "; allowed dtypes: float32, bfloat16, float16");
    require(weight.dtype == x.dtype && y.dtype == x.dtype, "gemm_few_rows: x is ", x, ", weight ", weight, ", y ", y,
            "; allowed: one dtype");
    for (const TensorView* v : {&x, &weight})
        require((v->shape[1] <= 1 || v->stride[1] == 1) && (v->shape[0] <= 1 || v->stride[0] >= v->shape[1]),
                "gemm_few_rows: ", v == &x ? "x" : "weight", " is ", *v,
                "; allowed: contiguous rows that do not overlap");
    require(y.contiguous() && !overlap(y, x) && !overlap(y, weight) && !overlap(y, bias), "gemm_few_rows: y is ", y,
            "; allowed: contiguous, apart from the inputs");
    require(!bias.defined() ||
                (bias.ndim == 1 && bias.shape[0] == weight.shape[0] && bias.dtype == x.dtype && bias.contiguous()),
            "gemm_few_rows: bias is ", bias, "; allowed: a contiguous vector of N and x's dtype, weight is ", weight);

    const FewRowsParams params{x.data,     weight.data,     bias.data,   y.data,          x.shape[0],
                               y.shape[1], weight.shape[1], x.stride[0], weight.stride[0]};
    const FewRowsTable& table = IVK_SELECT(few_rows_table);
    const FewRowsColumns run = x.dtype == DType::f32 ? table.f32 : x.dtype == DType::bf16 ? table.bf16 : table.f16;
    // About 64 KiB of weights an item: large enough to hide the hand-out, small enough to balance.
    const int64_t grain = std::max<int64_t>(4, (1 << 16) / (params.k * size_of(x.dtype)) / 4 * 4);
    if (params.m > 0)
        parallel_for(params.n, grain, threads, [&](int64_t begin, int64_t end) { run(params, begin, end); });
}

}  // namespace ivk
