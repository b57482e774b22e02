#include "kernels/attention/attention_sm80_causal_launch.cuh"

namespace ivk {

void attention_sm80_causal_128(const CachedAttention& p, bool aligned, Stream stream) {
    launch_causal<128>(p, aligned, stream);
}

}  // namespace ivk
