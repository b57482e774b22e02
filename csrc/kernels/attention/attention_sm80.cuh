// Attention without scores in memory: contract in attention.h. A block takes some queries of one head and passes over
// the keys in blocks of 64 or 48. Keys and values take turns in a ring of shared memory, so that while a block's scores
// are multiplied its values and the next block's keys come by cp.async. Scores, probabilities and results stay in
// registers, the sums of one mma being the operand of the next.
#pragma once

#include "device/ptx.cuh"
#include "device/quad.cuh"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_sm80_shape.cuh"

namespace ivk::device {

constexpr float kLowest = -INFINITY;

struct FlashArgs {
    AttentionBatch p;
    int tiles, group;  // blocks of one head's queries; query heads of a key head
    float scale;       // times log2 e
};

// A warp's queries.
template <typename T, int kDim, int kWarps>
struct Flash {
    using Shape = FlashShape<kDim, kWarps>;
    static constexpr int kM = Shape::kM, kKeys = Shape::kKeys, kSteps = kDim / 16;
    // Steps of 16 columns whose chunks the swizzle sets apart from each other; the rest lie behind them.
    static constexpr int kCycle = kDim % 64 == 0 ? 4 : 2;

    float scale;
    const char* queries;   // in shared memory
    int by_rows, by_keys;  // where this lane's row of a fragment of 16 rows begins: of queries and values, of keys
    uint32_t query[Shape::kHeld ? kSteps : 1][kM][4];
    float score[kM][kKeys / 8][4];  // of a block of keys, then its probabilities
    float result[kM][kDim / 8][4] = {}, top[kM][2], sum[kM][2] = {};

    __device__ Flash(float factor, const char* shared) : scale(factor) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        queries = shared + warp * kM * 16 * Shape::kPitch;
        by_rows = flash_offset<kDim>(lane % 16, lane / 16);
        by_keys = flash_offset<kDim>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
        for (int m = 0; m < kM; ++m) top[m][0] = top[m][1] = kLowest;
    }

    // Fragment of rows [16 row, 16 row + 16) and 16 columns.
    __device__ static const char* fragment(const char* matrix, int lane_begin, int row, int step) {
        const int column = (lane_begin ^ step % kCycle * 32) + step / kCycle * kCycle * 32;
        return matrix + (row * 16 * Shape::kPitch + column);
    }

    // RMSNorm on the way: the warp's queries, of which `left` are there, times their factors and the weight.
    template <bool kAligned>
    __device__ void normalise(const AttentionNormParams& norm, int64_t row, int left, int64_t head, int dim) {
        constexpr int kChunks = kDim / 8, kTogether = 32 / kChunks;  // rows at a time, a chunk to a lane
        const int lane = threadIdx.x % 32, chunk = lane % kChunks, n = min(dim - chunk * 8, 8);
        if (lane < kTogether * kChunks && n > 0) {
            const float* const from = norm.weight + head * dim + chunk * 8;
            const Vector low = load_vector<float, kAligned>(from, n),
                         high = load_vector<float, kAligned>(from + 4, n - 4);
#pragma unroll 1
            for (int own = lane / kChunks; own < min(left, kM * 16); own += kTogether) {
                const float factor = norm.q_factor[row + own];
                Vector& eight = *reinterpret_cast<Vector*>(const_cast<char*>(queries) + flash_offset<kDim>(own, chunk));
                eight = map<T>(eight, [&](float v, int i) {
                    return v * (factor * __uint_as_float(i < 4 ? low.word[i] : high.word[i - 4]));
                });
            }
        }
        __syncwarp();
    }

    __device__ void hold(int place, int step) {
#pragma unroll
        for (int m = 0; m < kM; ++m) load_matrices(query[place][m], fragment(queries, by_rows, m, step));
    }

    // Probabilities of a block's keys, of which the first `left` are multiplied; hide() takes those that a row does not
    // see. One code for whole blocks and the last one, or ptxas spills: what is not multiplied is few instructions at a
    // time, which it predicates.
    template <bool kNormed, typename Hide>
    __device__ void weigh(const char* keys, int left, Hide&& hide) {
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) score[m][n][i] = 0.0f;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            if constexpr (!Shape::kHeld) hold(0, step);
            const auto& q = query[Shape::kHeld ? step : 0];
#pragma unroll
            for (int n = 0; n < kKeys / 16; ++n) {
                uint32_t k[4];
                load_matrices(k, fragment(keys, by_keys, n, step));
                if (n > 0 && n * 16 >= left) continue;
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    mma<T>(score[m][2 * n], q[m], k[0], k[1]);
                    mma<T>(score[m][2 * n + 1], q[m], k[2], k[3]);
                }
            }
        }
        if constexpr (kNormed) meet_factors(reinterpret_cast<const float2*>(keys + kKeys * Shape::kPitch));
        hide();
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) soften(m, half);
    }

    // Their values join the results.
    __device__ void mix(const char* values, int left) {
#pragma unroll
        for (int n = 0; n < kKeys / 16; ++n) {
            uint32_t p[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float (&s)[4] = score[m][2 * n + i / 2];
                    p[m][i] = close2<T>(s[i % 2 * 2], s[i % 2 * 2 + 1]);
                }
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                uint32_t v[4];
                load_transposed(v, fragment(values, by_rows, n, step));
                if (n > 0 && n * 16 >= left) continue;
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    mma<T>(result[m][2 * step], p[m], v[0], v[1]);
                    mma<T>(result[m][2 * step + 1], p[m], v[2], v[3]);
                }
            }
        }
    }

    // Scores times their keys' factors.
    __device__ void meet_factors(const float2* factors) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
            const float2 f = factors[n * 4 + threadIdx.x % 4];
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) score[m][n][i] *= i % 2 ? f.y : f.x;
        }
    }

    // Scores of keys past the first `left`.
    __device__ void hide_past(int left) {
        const int column = threadIdx.x % 4 * 2;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
                if (n * 8 + column + i >= left)
#pragma unroll
                    for (int m = 0; m < kM; ++m) score[m][n][i] = score[m][n][2 + i] = kLowest;
    }

    // Scores of keys that a row does not see: the warp's first one sees `seen` keys of this block and of those before
    // it, each other one key more, and all of them the last `window` alone.
    __device__ void hide_unseen(int seen, int window) {
        const int column = threadIdx.x % 4 * 2, row = threadIdx.x % 32 / 4;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int end = seen + m * 16 + half * 8 + row, begin = end - window;
#pragma unroll
                for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const int key = n * 8 + column + i;
                        if (key >= end || key < begin) score[m][n][half * 2 + i] = kLowest;
                    }
            }
    }

    // A logit without a value joins the sums; `sink`: times log2 e.
    __device__ void join(float sink) {
        if (threadIdx.x % 4 != 0) return;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                sum[m][half] += ex2(sink - (top[m][half] == kLowest ? 0.0f : top[m][half] * scale));
    }

    // Scores of a row become probabilities below the highest so far; sums and results follow it.
    __device__ void soften(int m, int half) {
        float most = top[m][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) most = fmaxf(most, score[m][n][half * 2 + i]);
        most = quad_max(most);
        const float base = most == kLowest ? 0.0f : most * scale;           // a row of -Inf alone: no Inf - Inf yet
        const float factor = ex2(top[m][half] * scale - base);              // the base before, as it was rounded then
        const bool raised = __any_sync(0xFFFFFFFFu, most != top[m][half]);  // else factors are 1
        top[m][half] = most;
        float total = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float& s = score[m][n][half * 2 + i];
                s = ex2(fmaf(s, scale, -base));
                total += s;
            }
        sum[m][half] = fmaf(sum[m][half], factor, total);
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n)
            if (raised) result[m][n][half * 2] *= factor, result[m][n][half * 2 + 1] *= factor;
    }

    // Rows [first, first + 16 kM) of y, of which those before `end` are there.
    template <bool kAligned>
    __device__ void finish(T* y, int64_t stride, int first, int end, int dim) {
        const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float factor = rcp(quad_sum(sum[m][half]));  // of 1 and more
                const int row = first + m * 16 + half * 8 + lane / 4;
#pragma unroll
                for (int group = 0; group < kDim / 32; ++group) {
                    Vector out;
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float (&r)[4] = result[m][group * 4 + i];
                        out.word[i] = close2<T>(r[half * 2] * factor, r[half * 2 + 1] * factor);
                    }
                    turn_quad(out.word);
                    const int column = group * 32 + t * 8;
                    if (row < end && column < dim)
                        store_vector<T, kAligned>(y + row * stride + column, out, min(dim - column, kLanes<T>));
                }
            }
    }
};

// What only few places need waits in shared memory: registers are full.
template <typename T>
struct FlashLater {
    T* y;
    const float* k_factor;
};

template <typename T, int kDim, int kWarps, bool kAligned, bool kNormed>
__global__ void __launch_bounds__(32 * kWarps, FlashShape<kDim, kWarps>::kBlocks)
    attention_kernel(const __grid_constant__ FlashArgs a) {
    using Shape = FlashShape<kDim, kWarps>;
    constexpr int kThreads = Shape::kThreads, kKeys = Shape::kKeys, kAhead = Shape::kSlots - 1;
    extern __shared__ __align__(128) char shared[];
    const AttentionBatch& p = a.p;
    const int tile = blockIdx.x % a.tiles, pair = blockIdx.x / a.tiles, heads = static_cast<int>(p.heads);
    const int head = pair % heads, b = pair / heads;
    const int dim = static_cast<int>(p.dim), end = static_cast<int>(p.rows);
    const T* const q = static_cast<const T*>(p.q) + b * p.of_q.batch + head * p.of_q.head;
    const T* const k = static_cast<const T*>(p.k) + b * p.of_k.batch + head / a.group * p.of_k.head;
    const T* const v = static_cast<const T*>(p.v) + b * p.of_v.batch + head / a.group * p.of_v.head;
    const int warp = __shfl_sync(0xFFFFFFFFu, threadIdx.x / 32, 0);  // so that the compiler knows: of all lanes
    const int first = tile * Shape::kRows, mine = first + warp * Shape::kM * 16;

    char* const ring = shared + Shape::kRows * Shape::kPitch;
    FlashLater<T>& later = *reinterpret_cast<FlashLater<T>*>(ring + Shape::kSlots * Shape::kSlot);
    if (threadIdx.x < 32)  // a whole warp: its lanes stay together
        later = {static_cast<T*>(p.y) + b * p.of_y.batch + head * p.of_y.head,
                 kNormed ? p.norm.k_factor + b * p.keys : nullptr};
    const HeadCopy<T, kDim, kKeys, kThreads, kAligned> copy_keys{k, p.of_k.row, dim}, copy_values{v, p.of_v.row, dim};
    const int count = static_cast<int>(p.keys);
    int slot = 0;  // that is read
    const auto fetch = [&](const auto& copy, int key, int to) {
        if (key < count) copy(ring + to * Shape::kSlot, key, count - key);
        commit_copies();  // an empty group too: groups are counted
    };
    // Their factors go behind the keys, in a group with them: 64, so that whole warps copy.
    const auto fetch_factors = [&](const float* factors, int key, int to) {
        if (kNormed && key < count && threadIdx.x < 64) {
            const int own = threadIdx.x;
            copy_word_async(ring + to * Shape::kSlot + kKeys * Shape::kPitch + own * 4, factors + key + own,
                            own < kKeys && key + own < count);
        }
    };
    const auto arrive = [&] {
        wait_copies<kAhead - 1>();
        __syncthreads();  // what is read next is there for all, and all have left what they read before
    };
    HeadCopy<T, kDim, Shape::kRows, kThreads, kAligned>{q, p.of_q.row, dim}(shared, first, end - first);
    if constexpr (kNormed) fetch_factors(p.norm.k_factor + b * p.keys, 0, 0);
    fetch(copy_keys, 0, 0);
    if constexpr (kAhead == 2) fetch(copy_values, 0, 1);
    Flash<T, kDim, kWarps> flash(a.scale, shared);
    arrive();
    if constexpr (kNormed) flash.template normalise<kAligned>(p.norm, b * p.rows + mine, end - mine, head, dim);
    if constexpr (Shape::kHeld)
#pragma unroll
        for (int step = 0; step < kDim / 16; ++step) flash.hold(step, step);
    // The slot read before goes to what is kAhead turns away: keys and values take turns.
    const auto turn = [&](const auto& same, const auto& other, int key, int next) {
        const int before = slot == 0 ? Shape::kSlots - 1 : slot - 1;
        if (kNormed && (next == 0) == (kAhead == 2)) fetch_factors(later.k_factor, key + kKeys, before);
        if constexpr (kAhead == 2)
            fetch(same, key + kKeys, before);
        else
            fetch(other, key + next, before);
        const char* const here = ring + slot * Shape::kSlot;
        slot = slot + 1 == Shape::kSlots ? 0 : slot + 1;
        return here;
    };
    const auto loop = [&](auto works) {
#pragma unroll 1
        for (int key = 0; key < count; key += kKeys) {
            const char* const keys = turn(copy_keys, copy_values, key, 0);
            if constexpr (decltype(works)::value) {
                const int left = count - key;
                flash.template weigh<kNormed>(keys, left, [&] {
                    if (left < kKeys) flash.hide_past(left);
                });
            }
            arrive();
            const char* const values = turn(copy_values, copy_keys, key, kKeys);
            if constexpr (decltype(works)::value) flash.mix(values, count - key);
            arrive();
        }
    };
    if (mine < end) {
        loop(std::true_type{});
        flash.template finish<kAligned>(later.y, p.of_y.row, mine, end, dim);
    } else {
        loop(std::false_type{});  // the warp helps with the copies
    }
}

}  // namespace ivk::device
