#include "core/check.h"
#include "kernels/pixel_shuffle/pixel_shuffle.h"

namespace ivk {

void pixel_shuffle_cuda(const PixelShuffleParams& p, const Device& on, Stream stream) {
    std::string why;
    if (supports_pixel_shuffle_sm80(p, on, &why)) return pixel_shuffle_sm80(p, stream);
    require(false, "pixel_shuffle: no CUDA kernel takes ", describe(p), "; pixel_shuffle_sm80: ", why);
}

}  // namespace ivk
