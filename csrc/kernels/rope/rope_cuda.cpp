#include "core/check.h"
#include "kernels/rope/rope.h"

namespace ivk {

void rope_cuda(const RopeParams& p, const Device& on, Stream stream) {
    std::string why;
    if (supports_rope_sm80(p, on, &why)) return rope_sm80(p, stream);
    require(false, "qkv_rope: no CUDA kernel takes ", describe(p), "; rope_sm80: ", why);
}

}  // namespace ivk
