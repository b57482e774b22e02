#include "core/simd_norm.h"
#include "kernels/norm/norm.h"

namespace ivk {
namespace IVK_ISA {
namespace {

// weight, bias and y of Y
template <typename T, typename Y>
void norm_rows(const NormParams& p, int64_t begin, int64_t end) {
    const T* scale = static_cast<const T*>(p.scale);
    const Y* weight = static_cast<const Y*>(p.weight);
    const Y* bias = static_cast<const Y*>(p.bias);
    for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(p.x) + r * p.stride_x;
        Y* y = p.y ? static_cast<Y*>(p.y) + r * p.stride_y : nullptr;
        if (p.branch != nullptr) {
            const T* branch = static_cast<const T*>(p.branch) + r * p.stride_branch;
            T* h = static_cast<T*>(p.h) + r * p.stride_h;
            for_lanes(p.cols, [&](int64_t i, int64_t n) {
                f32x16 b = at(branch + i, n);
                if (scale != nullptr) b = b * at(scale + i, n);
                put(h + i, at(x + i, n) + b, n);
            });
            x = h;
        }
        if (y == nullptr) continue;
        if (p.kind == NormKind::layer)
            layer_norm_row(x, weight, bias, y, p.cols, p.eps);
        else if (p.kind == NormKind::rms)
            rms_norm_row<true>(x, weight, y, p.cols, p.eps);
        else
            rms_norm_row<false>(x, weight, y, p.cols, p.eps);
    }
}

}  // namespace

const NormTable norm_table = {norm_rows<float, float>, norm_rows<bf16, bf16>, norm_rows<f16, f16>,
                              norm_rows<float, bf16>, norm_rows<float, f16>};

}  // namespace IVK_ISA
}  // namespace ivk
