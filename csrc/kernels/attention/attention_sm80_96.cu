#include "kernels/attention/attention_sm80_launch.cuh"

namespace ivk {

void attention_sm80_96(const AttentionBatch& p, int tile, bool aligned, Stream stream) {
    launch_attention<96>(p, tile, aligned, stream);
}

}  // namespace ivk
