#include "kernels/gemm/gemm_sm80_launch.cuh"

namespace ivk {

void gemm_sm80_bf16(const GemmParams& p, int tile, bool aligned, Stream stream) {
    launch_gemm<device::bf16, false>(p, tile, aligned, stream);
}

}  // namespace ivk
