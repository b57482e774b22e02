// One source file per dtype: together they would compile too long.
#pragma once

#include "core/cuda/launch.h"
#include "kernels/patch_embed/patch_embed_sm80.cuh"

namespace ivk {

// piece: bytes of weight that a copy moves: 16, 8, or 2 for problems that go element by element.
void patch_embed_sm80_bf16(const device::PatchEmbedArgs&, int columns, int piece, Stream);
void patch_embed_sm80_f16(const device::PatchEmbedArgs&, int columns, int piece, Stream);

template <typename T, int kColumns, int kPiece>
void launch_patch_embed_as(const device::PatchEmbedArgs& a, Stream stream) {
    const int64_t blocks = int64_t{a.panels} * ((a.tiles_n + a.each - 1) / a.each);
    const Launch how{"patch_embed_sm80", dim3(static_cast<unsigned>(blocks)), dim3(kColumns),
                     static_cast<size_t>(device::kEmbedShared<kColumns>), stream};
    launch(how, device::patch_embed_kernel<T, kColumns, kPiece>, a);
}

template <typename T>
void launch_patch_embed(const device::PatchEmbedArgs& a, int columns, int piece, Stream stream) {
    if (piece == 2) return launch_patch_embed_as<T, 128, 2>(a, stream);
    if (columns == 128)
        return piece == 8 ? launch_patch_embed_as<T, 128, 8>(a, stream) : launch_patch_embed_as<T, 128, 16>(a, stream);
    piece == 8 ? launch_patch_embed_as<T, 256, 8>(a, stream) : launch_patch_embed_as<T, 256, 16>(a, stream);
}

}  // namespace ivk
