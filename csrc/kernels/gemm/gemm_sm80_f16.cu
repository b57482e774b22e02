#include "kernels/gemm/gemm_sm80_launch.cuh"

namespace ivk {

void gemm_sm80_f16(const GemmParams& p, int tile, bool aligned, Stream stream) {
    launch_gemm<device::f16, false>(p, tile, aligned, stream);
}

}  // namespace ivk
