// The four lanes that share a row of an mma's sums. Turned: between two columns of four fragments each, as the mma
// leaves them, and eight columns of one fragment, as memory likes them.
#pragma once

#include <cstdint>

namespace ivk::device {

// word[i] of lane t becomes word[t] of lane i, within each four lanes: four shuffles, no index at run time.
__device__ inline void turn_quad(uint32_t (&word)[4]) {
    const int lane = threadIdx.x % 32;
    const bool one = lane & 1, two = lane & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {  // 0 with 1, 2 with 3
        const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, one ? word[i] : word[i + 1], 1);
        word[i] = one ? got : word[i];
        word[i + 1] = one ? word[i + 1] : got;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // 0 with 2, 1 with 3
        const uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, two ? word[i] : word[i + 2], 2);
        word[i] = two ? got : word[i];
        word[i + 2] = two ? word[i + 2] : got;
    }
}

// Of a row, from what its four lanes have.
__device__ inline float quad_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, 2));
}
__device__ inline float quad_sum(float v) {
    v += __shfl_xor_sync(0xFFFFFFFFu, v, 1);
    return v + __shfl_xor_sync(0xFFFFFFFFu, v, 2);
}

}  // namespace ivk::device
