#include "kernels/attention/attention_sm80_causal_launch.cuh"

namespace ivk {

void attention_sm80_causal_256(const CachedAttention& p, bool aligned, Stream stream) {
    launch_causal<256>(p, aligned, stream);
}

}  // namespace ivk
