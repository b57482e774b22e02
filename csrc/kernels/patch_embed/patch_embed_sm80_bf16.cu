#include "kernels/patch_embed/patch_embed_sm80_launch.cuh"

namespace ivk {

void patch_embed_sm80_bf16(const device::PatchEmbedArgs& a, int columns, int piece, Stream stream) {
    launch_patch_embed<device::bf16>(a, columns, piece, stream);
}

}  // namespace ivk
