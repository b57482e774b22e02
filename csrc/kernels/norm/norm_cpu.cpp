#include "core/simd_norm.h"
#include "kernels/norm/norm.h"

namespace ivk {
namespace IVK_ISA {
namespace {

template <typename T>
void norm_rows(const NormParams& p, int64_t begin, int64_t end) {
    const T* scale = static_cast<const T*>(p.scale);
    const T* weight = static_cast<const T*>(p.weight);
    const T* bias = static_cast<const T*>(p.bias);
    for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(p.x) + r * p.stride_x;
        T* y = p.y ? static_cast<T*>(p.y) + r * p.stride_y : nullptr;
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
        else
            rms_norm_row(x, weight, y, p.cols, p.eps);
    }
}

}  // namespace

const NormTable norm_table = {norm_rows<float>, norm_rows<bf16>, norm_rows<f16>};

}  // namespace IVK_ISA
}  // namespace ivk
