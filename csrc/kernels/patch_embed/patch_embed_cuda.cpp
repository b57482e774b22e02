#include "core/check.h"
#include "kernels/patch_embed/patch_embed.h"

namespace ivk {

void patch_embed_cuda(const PatchEmbedParams& p, const Device& on, Stream stream, PatchEmbedPlan asked) {
    std::string why;
    if (supports_patch_embed_sm80(p, on, &why)) return patch_embed_sm80(p, on, stream, asked);
    require(false, "patch_embed: no CUDA kernel takes ", describe(p), "; patch_embed_sm80: ", why);
}

}  // namespace ivk
