#include "core/check.h"
#include "kernels/attention/attention.h"

namespace ivk {

void attention_cuda(const AttentionBatch& p, const Device& on, Stream stream, int tile) {
    std::string why;
    if (supports_attention_sm80(p, on, &why)) return attention_sm80(p, on, stream, tile);
    require(false, "attention: no CUDA kernel takes ", describe(p), "; attention_sm80: ", why);
}

}  // namespace ivk
