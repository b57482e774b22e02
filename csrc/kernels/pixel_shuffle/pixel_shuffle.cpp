#include "kernels/pixel_shuffle/pixel_shuffle.h"

#include "core/parallel.h"

namespace ivk {

void pixel_shuffle(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y,
                   int64_t rows, int64_t cols, int64_t factor, bool column_major, bool drop_cls, float eps,
                   int threads) {
    const PixelShuffleParams params =
        pixel_shuffle_problem(x, weight, bias, y, rows, cols, factor, column_major, drop_cls, eps);
    const PixelShuffleTable& table = IVK_SELECT(pixel_shuffle_table);
    const bool wide = params.dtype == DType::f32, half = params.out == DType::bf16;
    const PixelShuffleTokens run = params.out == DType::f32 ? table.f32
                                   : half                   ? (wide ? table.f32_bf16 : table.bf16)
                                                            : (wide ? table.f32_f16 : table.f16);
    parallel_for(token_count(params), 1 + (1 << 14) / (factor * factor * x.shape[2]), threads,
                 [&](int64_t begin, int64_t end) { run(params, begin, end); });
}

}  // namespace ivk
