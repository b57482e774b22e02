#include "core/check.h"
#include "kernels/embed/embed.h"

namespace ivk {

void embed_cuda(const EmbedParams& p, const Device& on, Stream stream) {
    std::string why;
    if (supports_embed_sm80(p, on, &why)) return embed_sm80(p, stream);
    require(false, "embed_tokens: no CUDA kernel takes ", describe(p), "; embed_sm80: ", why);
}

}  // namespace ivk
