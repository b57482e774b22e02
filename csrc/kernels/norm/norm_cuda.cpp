#include "core/check.h"
#include "kernels/norm/norm.h"

namespace ivk {

void norm_cuda(const NormParams& p, const Device& on, Stream stream) {
    std::string why;
    if (supports_norm_sm80(p, on, &why)) return norm_sm80(p, stream);
    require(false, "norm: no CUDA kernel takes ", describe(p), "; norm_sm80: ", why);
}

}  // namespace ivk
