// Activations in fp32.
#pragma once

#include "device/ptx.cuh"

namespace ivk::device {

// x Phi(x), the exact GELU. Phi(-|x|) = erfc(z) / 2 with z = |x| / sqrt 2, and erfc(z) = t 2^(polynomial(t) - z^2 log2
// e), t = 1 / (1 + z / 2): a fit on Chebyshev points of t in [0.1, 1], 3.7e-8 off at most, and two units each of the
// approximate reciprocal and power. Written out in fused multiply-adds.
__device__ inline float gelu(float x) {
    constexpr float kFit[] = {-0.13275567867755503f, 0.9804638617979144f, -2.942079077999353f,  4.5290361060719855f,
                              -3.6528163280208577f,  1.5054415748783445f, -0.6609750060145952f, 0.22816375122891006f,
                              0.5276902349773631f,   1.4436047131301046f, -1.8257741298467374f};
    const float z = fabsf(x) * 0x1.6a09e6p-1f;
    const float t = rcp(fmaf(z, 0.5f, 1.0f));
    float p = kFit[0];
#pragma unroll
    for (int i = 1; i < 11; ++i) p = fmaf(p, t, kFit[i]);
    const float tail = 0.5f * t * ex2(fmaf(z * -0x1.715476p0f, z, p));
    return x * (x > 0.0f ? 1.0f - tail : tail);
}

// x / (1 + e^-x).
__device__ inline float silu(float x) { return x * rcp(1.0f + ex2(x * -0x1.715476p0f)); }

// silu(gate) * up; with a limit GPT-OSS's g sigmoid(1.702 g) (u + 1), g at most limit, u from -limit to limit. NaN
// stays NaN: a comparison with it is false.
__device__ inline float gated(float gate, float up, float limit) {
    if (limit == 0.0f) return silu(gate) * up;
    const float g = gate > limit ? limit : gate, u = up > limit ? limit : up < -limit ? -limit : up;
    return (u + 1.0f) * (g * rcp(1.0f + ex2(g * (1.702f * -0x1.715476p0f))));
}

}  // namespace ivk::device
