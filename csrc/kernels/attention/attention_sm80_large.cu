#include "kernels/attention/attention_sm80_launch.cuh"

namespace ivk {

void attention_sm80_large(const AttentionBatch& p, Stream stream) { launch_attention<256, true>(p, stream); }

}  // namespace ivk
