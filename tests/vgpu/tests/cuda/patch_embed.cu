// The product's patch embedding behind one plain call: test_mutation_patch_embed.py builds it with edits.
// COLUMNS, PIECE: the form of its kernel that is built.
#include "kernels/patch_embed/patch_embed_sm80.cu"

namespace ivk {

void launch_kernel(const Launch& l, const void* kernel, void** arguments) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(l.shared));
    cudaLaunchKernel(kernel, l.grid, l.block, arguments, l.shared, l.stream);
}

void patch_embed_sm80_bf16(const device::PatchEmbedArgs& a, int columns, int piece, Stream stream) {
    if (columns == COLUMNS && piece == PIECE) launch_patch_embed_as<device::bf16, COLUMNS, PIECE>(a, stream);
}
void patch_embed_sm80_f16(const device::PatchEmbedArgs&, int, int, Stream) {}

}  // namespace ivk

// In bfloat16; pixels are bytes. sizes: tiles, rows and columns of patches, a patch's side, D, elements between rows of
// weight.
extern "C" void run_patch_embed(const int64_t* sizes, const void* const* given, void* y, const float* mean,
                                const float* std) {
    ivk::PatchEmbedParams p{};
    p.tiles = given[0], p.weight = given[1], p.bias = given[2], p.cls = given[3], p.pos = given[4], p.y = y;
    p.count = sizes[0], p.grid_rows = sizes[1], p.grid_cols = sizes[2], p.patch = sizes[3];
    p.width = sizes[4], p.stride_weight = sizes[5];
    p.stride_channel = 1, p.stride_column = 3, p.stride_row = 3 * p.grid_cols * p.patch;
    p.stride_tile = p.stride_row * p.grid_rows * p.patch;
    for (int c = 0; c < 3; ++c) p.mean[c] = mean[c], p.std[c] = std[c];
    p.tile_dtype = ivk::DType::u8, p.dtype = p.out = ivk::DType::bf16;
    const ivk::Device on{0, "virtual", 8, 0, 108, 0, 0, 48 << 10, 163 << 10, 2048};
    ivk::patch_embed_sm80(p, on, nullptr, {COLUMNS, 2});
}
