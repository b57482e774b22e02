// Tensor-core products and the copies that feed them: CuTe's atoms (one PTX instruction each) by the names that the
// kernels use.
#pragma once

#include <cstdint>
#include <cute/arch/copy_sm75.hpp>
#include <cute/arch/copy_sm80.hpp>
#include <cute/arch/mma_sm80.hpp>
#include <type_traits>

#include "device/vector.cuh"

namespace ivk::device {

// Sixteen bytes from global to shared memory past L1, or zeros without reading.
__device__ inline void copy_async(char* shared, const void* global, bool read) {
    cute::SM80_CP_ASYNC_CACHEGLOBAL_ZFILL<Vector>::copy(*static_cast<const Vector*>(global),
                                                        *reinterpret_cast<Vector*>(shared), read);
}
// The same of four bytes, through L1.
__device__ inline void copy_word_async(char* shared, const float* global, bool read) {
    cute::SM80_CP_ASYNC_CACHEALWAYS_ZFILL<float>::copy(*global, *reinterpret_cast<float*>(shared), read);
}
__device__ inline void commit_copies() { cute::cp_async_fence(); }
template <int kLeft>
__device__ inline void wait_copies() {  // until at most kLeft groups are under way; 0: for all copies, groups or not
    cute::cp_async_wait<kLeft>();
}

// Four 8x8 matrices of 16-bit elements. Lane l names row l % 8 of matrix l / 8 and gets elements 2 (l % 4) and one on
// of row l / 4 of each; transposed: of column l / 4.
__device__ inline void load_matrices(uint32_t (&to)[4], const char* row) {
    cute::SM75_U32x4_LDSM_N::copy(*reinterpret_cast<const cute::uint128_t*>(row), to[0], to[1], to[2], to[3]);
}
__device__ inline void load_transposed(uint32_t (&to)[4], const char* row) {
    cute::SM75_U16x8_LDSM_T::copy(*reinterpret_cast<const cute::uint128_t*>(row), to[0], to[1], to[2], to[3]);
}

// c += a b: a [16, 16] by rows, b [16, 8] by columns, fp32 sums. Lane l has rows l / 4 and l / 4 + 8 of c in c[0..1]
// and c[2..3], columns 2 (l % 4) and one on.
template <typename T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    using Atom = std::conditional_t<std::is_same_v<T, bf16>, cute::SM80_16x8x16_F32BF16BF16F32_TN,
                                    cute::SM80_16x8x16_F32F16F16F32_TN>;
    Atom::fma(c[0], c[1], c[2], c[3], a[0], a[1], a[2], a[3], b0, b1, c[0], c[1], c[2], c[3]);
}

}  // namespace ivk::device
