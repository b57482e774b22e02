#include "core/simd_math.h"
#include "kernels/gemm/swiglu.h"

namespace ivk {
namespace IVK_ISA {
namespace {

template <typename T>
void swiglu_piece(const SwigluParams& p, int64_t row, int64_t first, int64_t last) {
    const T* gate = static_cast<const T*>(p.x) + row * p.stride_x + first;
    const T* up = gate + p.cols;
    T* y = static_cast<T*>(p.y) + row * p.stride_y + first;
    for_lanes(last - first,
              [&](int64_t i, int64_t n) { put(y + i, gated(at(gate + i, n), at(up + i, n), p.limit), n); });
}

}  // namespace

const SwigluTable swiglu_table = {swiglu_piece<float>, swiglu_piece<bf16>, swiglu_piece<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
