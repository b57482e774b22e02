#include "kernels/attention/attention_sm80_launch.cuh"

namespace ivk {

void attention_sm80_256(const AttentionBatch& p, int tile, bool aligned, Stream stream) {
    launch_attention<256>(p, tile, aligned, stream);
}

}  // namespace ivk
