#include "core/simd_math.h"
#include "kernels/gemm/gemm.h"

namespace ivk {
namespace IVK_ISA {
namespace {

template <typename T>
void activation_piece(const ActivationParams& p, int64_t row, int64_t first, int64_t last) {
    const T* x = static_cast<const T*>(p.x) + row * p.stride_x + first;
    T* y = static_cast<T*>(p.y) + row * p.stride_y + first;
    if (p.kind == Activation::swiglu)
        for_lanes(last - first,
                  [&](int64_t i, int64_t n) { put(y + i, silu(at(x + i, n)) * at(x + p.cols + i, n), n); });
    else
        for_lanes(last - first, [&](int64_t i, int64_t n) { put(y + i, gelu(at(x + i, n)), n); });
}

}  // namespace

const ActivationTable activation_table = {activation_piece<float>, activation_piece<bf16>, activation_piece<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
