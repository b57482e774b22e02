// The two passes of a bicubic resize of bytes, exact in integers: contract in image.h, what a pass is in image_pass.h.
#pragma once

#include "device/ptx.cuh"
#include "kernels/image/image_pass.h"

namespace ivk::device {

constexpr int kPicRows = 32;  // of a block's horizontal pass: one to a lane
constexpr int kPicWarps = 8;  // that share them
constexpr int kPicEach = 4;   // outputs of a warp: 12 bytes of each row, three words
constexpr int kPicOutputs = kPicWarps * kPicEach;
constexpr int kPicChunk = 256;  // source columns in shared memory at a time
constexpr int kPicWords = kPicChunk / 4;
constexpr int kPlanePitch = 3 * kPicWords + 1;      // words of a row: odd, so that 32 rows meet no bank twice
constexpr int kOutPitch = kPicOutputs * 3 / 4 + 1;  // likewise
constexpr int kDownThreads = 128;                   // of a block's vertical pass, 16 bytes each

template <int kPixelBytes>
constexpr int kRawPitch = kPicChunk * kPixelBytes + 32;  // bytes: a row from any address, and a group of pixels more

__device__ inline uint8_t* place(const ImageRows& r, int y, int v) {
    if (r.columns == 1 && y < r.tile_rows) return r.to + y * r.stride + v;
    const int64_t tile = int64_t{y / r.tile_rows} * r.columns + v / r.tile_bytes;
    return r.to + (tile * r.tile_rows + y % r.tile_rows) * r.stride + v % r.tile_bytes;
}

// The two halves of a sum of weights times bytes, rounded and clipped.
__device__ inline uint32_t clipped(int high, int low) {
    const int sum = static_cast<int>((static_cast<uint32_t>(high) << kLowBits) + static_cast<uint32_t>(low) +
                                     (1u << (kWeightBits - 1)));
    return static_cast<uint32_t>(min(max(sum >> kWeightBits, 0), 255));
}

// Sixteen bytes from an aligned address, of which [begin, end) may be read; zeros for the rest.
__device__ inline uint4 load_inside(const uint8_t* from, const uint8_t* begin, const uint8_t* end) {
    if (from >= begin && from + 16 <= end) return *reinterpret_cast<const uint4*>(from);
    uint32_t word[4] = {};
#pragma unroll
    for (int i = 0; i < 16; ++i)
        if (from + i >= begin && from + i < end) word[i / 4] |= uint32_t{from[i]} << (i % 4 * 8);
    return make_uint4(word[0], word[1], word[2], word[3]);
}

// Rows lie in shared memory as planes of words of four neighbouring columns, a lane to a row: all lanes multiply by the
// same weights, whatever the scale.
template <int kPixelBytes>
__global__ void __launch_bounds__(32 * kPicWarps) along_kernel(const __grid_constant__ ImagePass p, int blocks) {
    extern __shared__ __align__(16) uint8_t shared[];
    uint8_t* const raw = shared;
    auto* const planes = reinterpret_cast<uint32_t*>(shared + kPicRows * kRawPitch<kPixelBytes>);
    uint32_t* const out = planes + kPicRows * kPlanePitch;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row0 = blockIdx.x / blocks * kPicRows, x0 = blockIdx.x % blocks * kPicOutputs;
    const Window &head = p.windows[x0], &tail = p.windows[min(x0 + kPicOutputs, p.outputs) - 1];
    const int first_word = static_cast<int>(head.first), end_word = static_cast<int>(tail.first + tail.count);

    int high[kPicEach][3] = {}, low[kPicEach][3] = {};
    for (int word0 = first_word; word0 < end_word; word0 += kPicWords) {
        const int words = min(kPicWords, end_word - word0), bytes = words * 4 * kPixelBytes;
        for (int row = warp; row < min(kPicRows, p.height - row0); row += kPicWarps) {
            const uint8_t* const begin = p.from + (row0 + row) * p.stride;
            const uint8_t* const wanted = begin + word0 * 4 * kPixelBytes;
            const int misplaced = static_cast<int>(reinterpret_cast<uintptr_t>(wanted) % 16);
            uint8_t* const mine = raw + row * kRawPitch<kPixelBytes>;
            for (int at = lane * 16; at < misplaced + bytes; at += 32 * 16)
                *reinterpret_cast<uint4*>(mine + at) = load_inside(wanted - misplaced + at, begin, begin + p.row_bytes);
            __syncwarp();
            const int turn = misplaced % 4 * 8;
            for (int word = lane; word < words; word += 32) {
                const auto* const from =
                    reinterpret_cast<const uint32_t*>(mine + misplaced / 4 * 4 + word * 4 * kPixelBytes);
                uint32_t v[kPixelBytes + 1];
#pragma unroll
                for (int k = 0; k <= kPixelBytes; ++k) v[k] = k < kPixelBytes || turn > 0 ? from[k] : 0;
#pragma unroll
                for (int k = 0; k < kPixelBytes; ++k) v[k] = __funnelshift_r(v[k], v[k + 1], turn);
                uint32_t plane[3];
                if constexpr (kPixelBytes == 3) {  // R0G0B0R1 G1B1R2G2 B2R3G3B3
                    plane[0] = __byte_perm(__byte_perm(v[0], v[1], 0x0630), v[2], 0x5210);
                    plane[1] = __byte_perm(__byte_perm(v[0], v[1], 0x0741), v[2], 0x6210);
                    plane[2] = __byte_perm(__byte_perm(v[0], v[1], 0x0052), v[2], 0x7410);
                } else {
#pragma unroll
                    for (int c = 0; c < 3; ++c)
                        plane[c] = __byte_perm(__byte_perm(v[0], v[1], 0x40 + c * 0x11),
                                               __byte_perm(v[2], v[3], 0x40 + c * 0x11), 0x5410);
                }
#pragma unroll
                for (int c = 0; c < 3; ++c) planes[row * kPlanePitch + c * kPicWords + word] = plane[c];
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kPicEach; ++i) {
            const int x = x0 + warp * kPicEach + i;
            if (x >= p.outputs || row0 + lane >= p.height) continue;
            const Window w = p.windows[x];
            const int first = static_cast<int>(w.first), end = first + static_cast<int>(w.count);
            const WeightQuad* const quads = p.quads + w.offset - first;
            for (int at = max(first, word0); at < min(end, word0 + kPicWords); ++at) {
                const int4 q = *reinterpret_cast<const int4*>(quads + at);  // high, high, low, low
#pragma unroll
                for (int c = 0; c < 3; ++c) {
                    const uint32_t four = planes[lane * kPlanePitch + c * kPicWords + at - word0];
                    high[i][c] = dot_high(q.y, four, dot_low(q.x, four, high[i][c]));
                    low[i][c] = dot_high(q.w, four, dot_low(q.z, four, low[i][c]));
                }
            }
        }
        __syncthreads();  // the next chunk overwrites this one
    }
    uint32_t word[3] = {};
#pragma unroll
    for (int i = 0; i < 3 * kPicEach; ++i) word[i / 4] |= clipped(high[i / 3][i % 3], low[i / 3][i % 3]) << (i % 4 * 8);
#pragma unroll
    for (int k = 0; k < 3; ++k) out[lane * kOutPitch + warp * 3 + k] = word[k];
    __syncthreads();
    const int count = min(kPicOutputs, p.outputs - x0) * 3;  // bytes of a row
    constexpr int kRowWords = kPicOutputs * 3 / 4;
    const bool whole =
        p.rows.tile_bytes % 4 == 0 && p.rows.stride % 4 == 0 && reinterpret_cast<uintptr_t>(p.rows.to) % 4 == 0;
    const int at = lane * 4;
    if (at >= count || lane >= kRowWords) return;
    for (int row = warp; row < min(kPicRows, p.height - row0); row += kPicWarps) {
        const uint32_t four = out[row * kOutPitch + lane];
        if (whole && at + 4 <= count)
            *reinterpret_cast<uint32_t*>(place(p.rows, row0 + row, x0 * 3 + at)) = four;
        else
            for (int k = 0; k < min(4, count - at); ++k)
                *place(p.rows, row0 + row, x0 * 3 + at + k) = static_cast<uint8_t>(four >> (8 * k));
    }
}

// Sixteen neighbouring bytes of a row to a thread, two source rows at a time.
template <bool kAligned>
__global__ void __launch_bounds__(kDownThreads) down_kernel(const __grid_constant__ ImagePass p, int blocks) {
    const int y = blockIdx.x / blocks, v = (blockIdx.x % blocks * kDownThreads + threadIdx.x) * 16;
    const int row_bytes = p.row_bytes, n = min(row_bytes - v, 16);
    if (n <= 0) return;
    const Window w = p.windows[y];
    const auto load = [&](int64_t row) {
        const uint8_t* const from = p.from + min(row, int64_t{p.height - 1}) * p.stride + v;
        if (kAligned && n == 16) return *reinterpret_cast<const uint4*>(from);
        uint32_t word[4] = {};
#pragma unroll
        for (int i = 0; i < 16; ++i)
            if (i < n) word[i / 4] |= uint32_t{from[i]} << (i % 4 * 8);
        return make_uint4(word[0], word[1], word[2], word[3]);
    };
    int high[16] = {}, low[16] = {};
    for (int64_t k = 0; k < w.count; ++k) {
        const uint4 even = load(2 * (w.first + k)), odd = load(2 * (w.first + k) + 1);
        const WeightPair pair = p.pairs[w.offset + k];
        const uint32_t a[4] = {even.x, even.y, even.z, even.w}, b[4] = {odd.x, odd.y, odd.z, odd.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint32_t first = __byte_perm(a[i], b[i], 0x5140), second = __byte_perm(a[i], b[i], 0x7362);
            high[4 * i] = dot_low(pair.high, first, high[4 * i]);
            high[4 * i + 1] = dot_high(pair.high, first, high[4 * i + 1]);
            high[4 * i + 2] = dot_low(pair.high, second, high[4 * i + 2]);
            high[4 * i + 3] = dot_high(pair.high, second, high[4 * i + 3]);
            low[4 * i] = dot_low(pair.low, first, low[4 * i]);
            low[4 * i + 1] = dot_high(pair.low, first, low[4 * i + 1]);
            low[4 * i + 2] = dot_low(pair.low, second, low[4 * i + 2]);
            low[4 * i + 3] = dot_high(pair.low, second, low[4 * i + 3]);
        }
    }
    uint32_t word[4] = {};
#pragma unroll
    for (int i = 0; i < 16; ++i) word[i / 4] |= clipped(high[i], low[i]) << (i % 4 * 8);
    const bool whole =
        p.rows.tile_bytes % 16 == 0 && p.rows.stride % 16 == 0 && reinterpret_cast<uintptr_t>(p.rows.to) % 16 == 0;
    if (whole && n == 16) {
        __stwb(reinterpret_cast<uint4*>(place(p.rows, y, v)), make_uint4(word[0], word[1], word[2], word[3]));
        return;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i)
        if (i < n) *place(p.rows, y, v + i) = static_cast<uint8_t>(word[i / 4] >> (i % 4 * 8));
}

}  // namespace ivk::device
