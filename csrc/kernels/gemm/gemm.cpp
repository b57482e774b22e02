#include "kernels/gemm/gemm.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"

namespace ivk {
namespace {

constexpr int64_t kPiece = 2048;  // columns of one work item; a multiple of the vector width

void check_rows(const char* op, const char* name, const TensorView& v) {
    require(v.ndim == 2 && (v.shape[1] <= 1 || v.stride[1] == 1) && (v.shape[0] <= 1 || v.stride[0] >= v.shape[1]), op,
            ": ", name, " is ", v, "; allowed: rows with a contiguous last dimension that do not overlap");
}

}  // namespace

void activation(const TensorView& x, const TensorView& y, Activation kind, int threads) {
    const bool gated = kind == Activation::swiglu;
    const char* op = gated ? "swiglu" : "gelu";
    require(x.dtype == DType::f32 || x.dtype == DType::bf16 || x.dtype == DType::f16, op, ": x is ", x,
            "; allowed dtypes: float32, bfloat16, float16");
    check_rows(op, "x", x);
    check_rows(op, "y", y);
    require(x.shape[1] % (gated ? 2 : 1) == 0, op, ": x is ", x, "; allowed: an even number of columns, gate then up");
    const int64_t rows = x.shape[0], cols = x.shape[1] / (gated ? 2 : 1);
    require(y.shape[0] == rows && y.shape[1] == cols && y.dtype == x.dtype, op, ": y is ", y, "; allowed: [", rows,
            ", ", cols, "] of x's dtype");
    require((!gated && same_place(x, y)) || !overlap(x, y), op, ": y overlaps x; allowed: apart",
            gated ? "" : ", or x itself");

    const ActivationParams params{x.data, y.data, cols, x.stride[0], y.stride[0], kind};
    const ActivationTable& table = IVK_SELECT(activation_table);
    const ActivationPiece piece = x.dtype == DType::f32 ? table.f32 : x.dtype == DType::bf16 ? table.bf16 : table.f16;
    const int64_t pieces = (cols + kPiece - 1) / kPiece;
    parallel_for(rows * pieces, 1 + (1 << 13) / std::max<int64_t>(std::min(cols, kPiece), 1), threads,
                 [&](int64_t begin, int64_t end) {
                     for (int64_t item = begin; item < end; ++item) {
                         const int64_t first = item % pieces * kPiece;
                         piece(params, item / pieces, first, std::min(first + kPiece, cols));
                     }
                 });
}

}  // namespace ivk
