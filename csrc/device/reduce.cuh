// Sums over the threads that share a row. Every thread gets the same bits; the order is fixed by the group's size.
#pragma once

namespace ivk::device {

__device__ inline float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
    return value;
}

// A row on one warp; the block holds several rows.
struct WarpGroup {
    static constexpr bool kBlock = false;
    __device__ static int thread() { return threadIdx.x % 32; }
    __device__ static int threads() { return 32; }
    template <int kNumber>
    __device__ static float sum(float value) {
        return warp_sum(value);
    }
};

// A row on a whole block of up to 32 warps.
struct BlockGroup {
    static constexpr bool kBlock = true;
    __device__ static int thread() { return threadIdx.x; }
    __device__ static int threads() { return blockDim.x; }
    // kNumber tells a kernel's sums apart: each has its own shared memory, so one barrier is enough.
    template <int kNumber>
    __device__ static float sum(float value) {
        __shared__ float of_warp[32];
        const int lane = threadIdx.x % 32;
        value = warp_sum(value);
        if (lane == 0) of_warp[threadIdx.x / 32] = value;
        __syncthreads();
        return warp_sum(lane < blockDim.x / 32 ? of_warp[lane] : 0.0f);
    }
};

}  // namespace ivk::device
