// Vector clocks, and the last accesses of each shared and global word.
//
// A cluster of n warps has 2n clocks: 2w is warp w itself, 2w + 1 its asynchronous copies. A warp's own clock advances at
// every release (barrier, fence, release store), so an access made at time t of clock i happened before everything done
// by a warp that knows clock[i] >= t. Copies act at the ticket of their commit group, and a warp learns of them at its
// wait, not at the issue; otherwise a missing wait before a barrier would stay hidden.
// Knowledge of other clusters (through fences and atomics on global memory only) is kept apart, sparsely.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace vgpu {

using ClockVector = std::vector<uint32_t>;
using Foreign = std::map<uint32_t, std::shared_ptr<const ClockVector>>;  // cluster -> its clocks

void join(ClockVector& into, const ClockVector& from);

struct Knowledge {
    ClockVector own;                         // clocks of this cluster
    std::shared_ptr<const Foreign> foreign;  // null: none
    void clear();
    void join(const Knowledge& other);
};

// What a word of memory that serves as a flag or counter has been told: everything its releasing writers knew.
class SyncTable {
  public:
    void release(uint64_t address, uint32_t cluster, const Knowledge& known);
    // Joins what the word knows into `known`; false if nobody released to it.
    bool acquire(uint64_t address, uint32_t cluster, Knowledge& known) const;

  private:
    mutable std::mutex mutex_;
    std::unordered_map<uint64_t, std::shared_ptr<const Foreign>> words_;
};

struct SharedWord {
    uint32_t write_time = 0;
    uint8_t write_id = 0, write_bytes = 0, write_lane = 0, write_atomic = 0;
    std::array<uint32_t, 6> reads{};  // id(7) | bytes(4) | time(21)
};

struct Racer {  // the earlier access of a race
    bool found = false;
    bool write = false, async = false, same_warp = false;
    uint32_t cluster = 0, slot = 0;
};

// Shadow of one block's shared memory.
struct SharedShadow {
    std::vector<SharedWord> words;
    void reset(uint32_t bytes);
};

struct AccessKind {
    bool write = false, atomic = false;  // atomic: also volatile, relaxed or stronger loads and stores
    uint8_t id = 0;                      // clock: 2 * slot, + 1 for asynchronous copies
    uint32_t time = 0;
    bool strict_warp = false;
};

// One lane's access to [offset, offset + bytes).
void shared_access(SharedShadow&, uint32_t offset, uint32_t bytes, uint32_t lane, const AccessKind&,
                   const ClockVector& known, Racer&);

// Shadow of one allocation, made page by page. Entries of earlier launches are void.
struct GlobalShadow {
    struct Word {
        std::atomic<uint64_t> write{0}, read[2] = {{0}, {0}};
    };
    static constexpr uint32_t kPageWords = 1024;
    explicit GlobalShadow(uint64_t bytes);
    ~GlobalShadow();
    Word* page(uint64_t index);
    std::vector<std::atomic<Word*>> pages;
};

void global_access(GlobalShadow&, uint64_t offset, uint32_t bytes, const AccessKind&, uint32_t launch, uint32_t cluster,
                   const Knowledge& known, Racer&);

}  // namespace vgpu
