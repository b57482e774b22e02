#include "core/check.h"
#include "kernels/attention/attention_cached.h"

namespace ivk {

void cached_attention_cuda(const CachedAttention& p, const Device& on, Stream stream) {
    std::string why;
    if (supports_attention_sm80_causal(p, on, &why)) return attention_sm80_causal(p, stream);
    require(false, "cached_attention: no CUDA kernel takes ", describe(p), "; attention_sm80_causal: ", why);
}

}  // namespace ivk
