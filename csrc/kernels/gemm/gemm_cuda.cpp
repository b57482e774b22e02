#include "core/check.h"
#include "kernels/gemm/gemm.h"

namespace ivk {

void gemm_cuda(const GemmParams& p, const Device& on, Stream stream, int tile) {
    std::string why;
    if (supports_gemm_sm80(p, on, &why)) return gemm_sm80(p, on, stream, tile);
    require(false, "gemm: no CUDA kernel takes ", describe(p), "; gemm_sm80: ", why);
}

}  // namespace ivk
