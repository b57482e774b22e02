#include "kernels/attention/attention_sm80_causal_launch.cuh"

namespace ivk {

void attention_sm80_causal_64(const CachedAttention& p, bool aligned, Stream stream) {
    launch_causal<64>(p, aligned, stream);
}

}  // namespace ivk
