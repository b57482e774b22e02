#include "core/parallel.h"
#include "core/simd_norm.h"
#include "kernels/pixel_shuffle/pixel_shuffle.h"

namespace ivk {
namespace IVK_ISA {
namespace {

// weight, bias and y of Y
template <typename T, typename Y>
void pixel_shuffle_tokens(const PixelShuffleParams& p, int64_t begin, int64_t end) {
    const int64_t down = p.rows / p.factor, across = p.cols / p.factor, size = p.factor * p.factor * p.width;
    for (int64_t token = begin; token < end; ++token) {
        const int64_t tile = token / (down * across), place = token % (down * across);
        const int64_t R = p.column_major ? place % down : place / across;
        const int64_t C = p.column_major ? place / down : place % across;
        const T* block =
            static_cast<const T*>(p.x) + tile * p.stride_tile + (R * p.cols + C) * p.factor * p.stride_patch;
        Y* const y = static_cast<Y*>(p.y) + token * size;
        T* gathered;
        if constexpr (std::is_same_v<T, Y>)
            gathered = y;
        else
            gathered = scratch(size);
        T* to = gathered;
        for (int64_t r = 0; r < p.factor; ++r)
            for (int64_t c = 0; c < p.factor; ++c, to += p.width)
                std::memcpy(to, block + (r * p.cols + c) * p.stride_patch, p.width * sizeof(T));
        if (p.weight != nullptr)  // in place: the token is still in the first cache level
            layer_norm_row(static_cast<const T*>(gathered), static_cast<const Y*>(p.weight),
                           static_cast<const Y*>(p.bias), y, size, p.eps);
    }
}

}  // namespace

const PixelShuffleTable pixel_shuffle_table = {pixel_shuffle_tokens<float, float>, pixel_shuffle_tokens<bf16, bf16>,
                                               pixel_shuffle_tokens<f16, f16>, pixel_shuffle_tokens<float, bf16>,
                                               pixel_shuffle_tokens<float, f16>};

}  // namespace IVK_ISA
}  // namespace ivk
