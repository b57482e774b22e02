#include "kernels/norm/norm.h"

#include "core/parallel.h"

namespace ivk {

void norm(const TensorView& x, const TensorView& branch, const TensorView& scale, const TensorView& weight,
          const TensorView& bias, const TensorView& h, const TensorView& y, float eps, NormKind kind, int threads) {
    const NormParams params = norm_problem(x, branch, scale, weight, bias, h, y, eps, kind);
    const NormTable& table = IVK_SELECT(norm_table);
    const bool wide = params.dtype == DType::f32, half = params.out == DType::bf16;
    const NormRows rows = params.out == DType::f32 ? table.f32
                          : half                   ? (wide ? table.f32_bf16 : table.bf16)
                                                   : (wide ? table.f32_f16 : table.f16);
    const int64_t grain = 1 + (1 << 14) / params.cols;
    parallel_for(params.rows, grain, threads, [&](int64_t begin, int64_t end) { rows(params, begin, end); });
}

}  // namespace ivk
