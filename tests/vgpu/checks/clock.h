// Vector clocks, and the last accesses of each shared and global word.
//
// A cluster of n warps has 2n clocks: 2w is warp w itself, 2w + 1 its asynchronous copies. A warp's own clock advances
// at every release (barrier, fence, release store), so an access made at time t of clock i happened before everything
// done by a warp that knows clock[i] >= t. Copies act at the ticket of their commit group, and a warp learns of them at
// its wait, not at the issue; otherwise a missing wait before a barrier would stay hidden. Knowledge of other clusters
// (through fences and atomics on global memory only) is kept apart, sparsely.
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

// Accesses of one word. Of each byte the last plain write is kept, and of each clock the last plain read, atomic read
// and atomic write since then: whatever a later access can race with. What does not fit goes to SharedShadow::more.
struct PlainWrite {
    uint32_t time = 0;
    uint16_t request = 0;  // writes of one instruction do not race among themselves: the hardware picks one
    uint8_t id = 0, lane = 0, bytes = 0;  // bytes: mask, 0 for none
};
enum class Touch : uint8_t { read, atomic_read, atomic_write };
struct OtherAccess {
    uint32_t tag = 0;    // id(7) | bytes(4) | Touch(2) | time(19), 0 for none
    uint32_t lanes = 0;  // of the warp, at that time
};
struct SharedWord {
    PlainWrite writes[2];
    OtherAccess others[4];
    bool more = false;
};
struct MoreAccesses {
    std::vector<PlainWrite> writes;
    std::vector<OtherAccess> others;
};

struct Racer {  // the earlier access of a race
    bool found = false;
    bool write = false, async = false, same_warp = false;
    uint32_t cluster = 0, slot = 0;
};

// Shadow of one block's shared memory. Most of it is written and read 16 aligned bytes at a time: while the four words
// of such a granule have the same past, one entry stands for all of them.
struct SharedShadow {
    std::vector<SharedWord> granules, words;  // words are made when the first granule parts
    std::vector<uint8_t> parted;              // per granule
    std::unordered_map<uint32_t, MoreAccesses> more, more_of_granules;
    void reset(uint32_t bytes);
    void part(uint32_t granule);
};

struct AccessKind {
    bool write = false, atomic = false;  // atomic: also volatile, relaxed or stronger loads and stores
    uint8_t id = 0;                      // clock: 2 * slot, + 1 for asynchronous copies
    uint32_t time = 0;
    bool strict_warp = false;
    uint16_t request = 0;
    const uint32_t* waited = nullptr;  // per lane: ticket up to which its copies are waited for
};

// A warp's request: each of these lanes accesses `bytes` at its offset. The first lane that races, or -1.
int shared_request(SharedShadow&, uint32_t lanes, const uint32_t* offset, uint32_t bytes, const AccessKind&,
                   const ClockVector& known, Racer&);

// Shadow of one allocation, made page by page. Entries of earlier launches are void. Two writes and two reads are kept
// of a word: enough for two halves; a race with a third can go unseen.
// As in shared memory, one entry stands for 16 aligned bytes until a smaller access comes; from then on for good.
struct GlobalShadow {
    struct Word {
        std::atomic<uint64_t> write[2] = {{0}, {0}}, read[2] = {{0}, {0}};
    };
    static constexpr uint32_t kPageWords = 1024;
    struct Page {
        Word granules[kPageWords / 4];
        std::atomic<uint8_t> parted[kPageWords / 4] = {};  // 1 while a thread is at it, then 2
        std::atomic<Word*> words{nullptr};
        ~Page() { delete[] words.load(); }
        Word* part(uint32_t granule);  // its four words
    };
    explicit GlobalShadow(uint64_t bytes);
    ~GlobalShadow();
    Page* page(uint64_t index);
    void forget();  // launch numbers start again
    std::vector<std::atomic<Page*>> pages;
};

// The same in global memory; offsets are addresses less the allocation's `base`.
int global_request(GlobalShadow&, uint32_t lanes, const uint64_t* address, uint64_t base, uint32_t bytes,
                   const AccessKind&, uint32_t launch, uint32_t cluster, const Knowledge& known, Racer&);

}  // namespace vgpu
