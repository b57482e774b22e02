#include "kernels/patch_embed/patch_embed_sm80_launch.cuh"

namespace ivk {

void patch_embed_sm80_f16(const device::PatchEmbedArgs& a, int columns, int piece, Stream stream) {
    launch_patch_embed<device::f16>(a, columns, piece, stream);
}

}  // namespace ivk
