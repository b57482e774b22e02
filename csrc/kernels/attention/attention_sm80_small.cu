#include "core/cuda/dispatch.h"
#include "kernels/attention/attention_sm80_launch.cuh"

namespace ivk {

void attention_sm80_small(const AttentionBatch& p, int dim, bool aligned, Stream stream) {
    with_bool(aligned, [&](auto whole) {
        dim == 64   ? launch_attention<64, whole>(p, stream)
        : dim == 96 ? launch_attention<96, whole>(p, stream)
                    : launch_attention<128, whole>(p, stream);
    });
}

}  // namespace ivk
