#include "kernels/attention/attention_sm80_causal_launch.cuh"

namespace ivk {

void attention_sm80_causal_96(const CachedAttention& p, bool aligned, Stream stream) {
    launch_causal<96>(p, aligned, stream);
}

}  // namespace ivk
