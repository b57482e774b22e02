#include "kernels/attention/attention_sm80_launch.cuh"

namespace ivk {

void attention_sm80_64(const AttentionBatch& p, int tile, bool aligned, Stream stream) {
    launch_attention<64>(p, tile, aligned, stream);
}

}  // namespace ivk
