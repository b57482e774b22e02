// One wrapper per PTX instruction that C++ has no name for; inline assembly stands nowhere else.
#pragma once

#include <cstdint>

namespace ivk::device {

// cvt.rn.bf16x2.f32: two floats to packed bfloat16, nearest even; `low` goes to the lower half.
__device__ inline uint32_t cvt_bf16x2(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// cvt.rn.f16x2.f32: two floats to packed half, nearest even; `low` goes to the lower half.
__device__ inline uint32_t cvt_f16x2(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// cvt.f32.f16: exact.
__device__ inline float cvt_f32_f16(uint16_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// rcp.approx.ftz.f32: 1 ulp.
__device__ inline float rcp(float x) {
    float value;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

// ex2.approx.ftz.f32, 2^x: 2 ulp; results below the smallest normal number are 0.
__device__ inline float ex2(float x) {
    float value;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

// dp2a: sum += two signed 16-bit weights times two bytes, the lower or the upper ones of four.
__device__ inline int dot_low(int weights, uint32_t bytes, int sum) {
    asm("dp2a.lo.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(weights), "r"(bytes));
    return sum;
}
__device__ inline int dot_high(int weights, uint32_t bytes, int sum) {
    asm("dp2a.hi.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(weights), "r"(bytes));
    return sum;
}

// cp.async.cg: the first `bytes` of 16 from global to shared memory, zeros behind them; only what is copied is read.
__device__ inline void cp_async_first(char* shared, const void* global, uint32_t bytes) {
    const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes));
}

}  // namespace ivk::device
