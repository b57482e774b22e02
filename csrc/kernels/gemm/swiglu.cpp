#include "kernels/gemm/swiglu.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

constexpr int64_t kPiece = 2048;  // columns of one work item; a multiple of the vector width

void check_rows(const char* name, const TensorView& v) {
    require(v.ndim == 2 && (v.shape[1] <= 1 || v.stride[1] == 1) && (v.shape[0] <= 1 || v.stride[0] >= v.shape[1]),
            "swiglu: ", name, " is ", v, "; allowed: rows with a contiguous last dimension that do not overlap");
}

}  // namespace

void swiglu(const TensorView& x, const TensorView& y, float limit, int threads) {
    require(limit >= 0.0f && std::isfinite(limit), "swiglu: limit is ", limit,
            "; allowed: above 0 and finite, or 0 for none");
    require(x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f16, "swiglu: x is ", x,
            "; allowed dtypes: float32, bfloat16, float16");
    check_rows("x", x);
    check_rows("y", y);
    require(x.shape[1] % 2 == 0, "swiglu: x is ", x, "; allowed: an even number of columns, gate then up");
    const int64_t rows = x.shape[0], cols = x.shape[1] / 2;
    require(y.shape[0] == rows && y.shape[1] == cols && y.dtype == x.dtype && !overlap(x, y), "swiglu: y is ", y,
            "; allowed: [", rows, ", ", cols, "] of x's dtype, apart from x");

    const SwigluParams params{x.data, y.data, cols, x.stride[0], y.stride[0], limit};
    const SwigluTable& table = IVK_SELECT(swiglu_table);
    const SwigluPiece piece = x.dtype == DType::f32 ? table.f32 : x.dtype == DType::bf16 ? table.bf16 : table.f16;
    const int64_t pieces = (cols + kPiece - 1) / kPiece;
    const int64_t grain = 1 + (1 << 13) / std::max<int64_t>(std::min(cols, kPiece), 1);
    parallel_for(rows * pieces, grain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t first = item % pieces * kPiece;
            piece(params, item / pieces, first, std::min(first + kPiece, cols));
        }
    });
}

}  // namespace ivk
