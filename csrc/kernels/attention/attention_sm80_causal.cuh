// Causal attention over slot caches (attention_cached.h), by the warps of attention_sm80.cuh: a block takes some rows
// of one sequence and one head and passes over the blocks of keys that they see, counted from the sequence's first key.
#pragma once

#include "kernels/attention/attention_cached.h"
#include "kernels/attention/attention_sm80.cuh"

namespace ivk::device {

constexpr int64_t kNowhere = -(int64_t{1} << 40);

struct CausalArgs {
    CachedAttention p;
    int group, page_shift;  // page_shift < 0: no pages
    int64_t pages_there;    // whole ones in the cache
    float scale;            // times log2 e
};

// Keys of a block on their way, which at most two pages hold.
template <typename T, int kDim, int kKeys, int kThreads, bool kAligned>
struct PagedCopy {
    static constexpr int kChunks = kDim / kLanes<T>, kAll = kKeys * kChunks;

    const T* head;
    int64_t stride;
    int dim;

    // `low` and `high` are where a key's slot counts from: up to key `bound` of the block, and from there on.
    __device__ void operator()(char* shared, int64_t low, int64_t high, int bound, int left) const {
#pragma unroll 4
        for (int i = 0; i < (kAll + kThreads - 1) / kThreads; ++i) {
            const int at = i * kThreads + threadIdx.x;
            if (kAll % kThreads != 0 && at >= kAll) break;  // whole warps
            const int row = at / kChunks, chunk = at % kChunks, column = chunk * kLanes<T>;
            const int64_t slot = (row < bound ? low : high) + row;
            const T* const from = head + slot * stride + column;
            const bool inside = row < left && column < dim && slot >= 0;
            char* const to = shared + flash_offset<kDim>(row, chunk);
            if constexpr (kAligned)
                copy_async(to, from, inside);
            else
                *reinterpret_cast<Vector*>(to) = load_vector<T, false>(from, inside ? min(dim - column, kLanes<T>) : 0);
        }
    }
};

// What only few places need waits in shared memory: registers are full.
template <typename T>
struct CausalLater {
    T* y;
    const int64_t* pages;  // of the sequence
    int64_t slot;          // of its first key, without pages
    float sink;
};

template <typename T, int kDim, int kWarps, bool kAligned>
__global__ void __launch_bounds__(32 * kWarps, FlashShape<kDim, kWarps>::kBlocks)
    causal_attention_kernel(const __grid_constant__ CausalArgs a) {
    using Shape = FlashShape<kDim, kWarps>;
    constexpr int kThreads = Shape::kThreads, kKeys = Shape::kKeys, kAhead = Shape::kSlots - 1;
    extern __shared__ __align__(128) char shared[];
    const CachedAttention& p = a.p;
    const int heads = static_cast<int>(p.heads), head = blockIdx.x % heads;
    // The last rows of a sequence see most: they begin first.
    const CachedTile tile = p.tiles[p.tile_count - 1 - blockIdx.x / heads];
    const int dim = static_cast<int>(p.dim);
    const T* const q = static_cast<const T*>(p.q) + int64_t{tile.row} * p.q_row + head * p.q_head;
    const PagedCopy<T, kDim, kKeys, kThreads, kAligned> copy_keys{
        static_cast<const T*>(p.k) + head / a.group * p.k_head, p.k_row, dim},
        copy_values{static_cast<const T*>(p.v) + head / a.group * p.v_head, p.v_row, dim};
    const int warp = __shfl_sync(0xFFFFFFFFu, threadIdx.x / 32, 0);  // so that the compiler knows: of all lanes
    const int mine = warp * Shape::kM * 16;

    char* const ring = shared + Shape::kRows * Shape::kPitch;
    CausalLater<T>& later = *reinterpret_cast<CausalLater<T>*>(ring + Shape::kSlots * Shape::kSlot);
    if (threadIdx.x < 32)  // a whole warp: its lanes stay together
        later = {static_cast<T*>(p.y) + int64_t{tile.row} * p.y_row + head * p.y_head, p.pages + tile.slot, tile.slot,
                 p.sinks == nullptr ? kLowest
                                    : open<T>(load_vector<T, false>(static_cast<const T*>(p.sinks) + head, 1), 0) *
                                          1.4426950408889634f};
    __syncthreads();
    const int window = p.window > 0 ? static_cast<int>(p.window) : INT_MAX / 2;
    const int count = tile.position + tile.rows;  // keys that the last row sees
    const int begin = max(tile.position + 1 - window, 0) / kKeys * kKeys;
    int slot = 0;  // that is read
    // Of a page; one that is not there is not read.
    const auto first_slot = [&](int page) {
        const int64_t place = later.pages[page];
        return 0 <= place && place < a.pages_there ? place << a.page_shift : kNowhere;
    };
    const auto fetch = [&](const auto& copy, int key, int to) {
        if (key < count) {
            int64_t low = later.slot + key, high = low;
            int bound = kKeys;
            if (a.page_shift >= 0) {
                const int page = key >> a.page_shift, next = (page + 1) << a.page_shift;
                bound = next - key;
                low = first_slot(page) + (key - (page << a.page_shift));
                if (bound < min(kKeys, count - key)) high = first_slot(page + 1) - bound;
            }
            copy(ring + to * Shape::kSlot, low, high, bound, count - key);
        }
        commit_copies();  // an empty group too: groups are counted
    };
    const auto arrive = [&] {
        wait_copies<kAhead - 1>();
        __syncthreads();  // what is read next is there for all, and all have left what they read before
    };
    HeadCopy<T, kDim, Shape::kRows, kThreads, kAligned>{q, p.q_row, dim}(shared, 0, tile.rows);
    fetch(copy_keys, begin, 0);
    if constexpr (kAhead == 2) fetch(copy_values, begin, 1);
    Flash<T, kDim, kWarps> flash(a.scale, shared);
    arrive();
    if constexpr (Shape::kHeld)
#pragma unroll
        for (int step = 0; step < kDim / 16; ++step) flash.hold(step, step);
    // The slot read before goes to what is kAhead turns away: keys and values take turns.
    const auto turn = [&](const auto& same, const auto& other, int key, int next) {
        const int before = slot == 0 ? Shape::kSlots - 1 : slot - 1;
        if constexpr (kAhead == 2)
            fetch(same, key + kKeys, before);
        else
            fetch(other, key + next, before);
        const char* const here = ring + slot * Shape::kSlot;
        slot = slot + 1 == Shape::kSlots ? 0 : slot + 1;
        return here;
    };
    // Keys that the warp's first row sees, and its last one that is there.
    const int first = tile.position + mine + 1, last = tile.position + min(mine + Shape::kM * 16, tile.rows);
    const bool works = mine < tile.rows;
#pragma unroll 1
    for (int key = begin; key < count; key += kKeys) {
        const bool seen = works && key < last && key + kKeys > first - window;
        const char* const keys = turn(copy_keys, copy_values, key, 0);
        if (seen)
            flash.template weigh<false>(keys, last - key, [&] {
                if (first - key < kKeys || last - window > key) flash.hide_unseen(first - key, window);
            });
        arrive();
        const char* const values = turn(copy_values, copy_keys, key, kKeys);
        if (seen) flash.mix(values, last - key);
        arrive();
    }
    if (works) {
        flash.join(later.sink);
        flash.template finish<kAligned>(later.y, p.y_row, mine, tile.rows, dim);
    }
}

}  // namespace ivk::device
