// A warp in flight, its block and its cluster.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "checks/clock.h"
#include "exec/op.h"

namespace vgpu {

constexpr uint64_t kSharedTag = 0x5AFEull << 48;  // generic addresses of the windows; global ones are host addresses
constexpr uint64_t kLocalTag = 0x10CAull << 48;
constexpr uint64_t kParamTag = 0x9A4Aull << 48;
constexpr uint64_t kTagMask = 0xFFFFull << 48;
// Shared address of offset 0 in the block of rank r: ((r + 1) << 24) | 1024. Zero is no valid shared address.
constexpr uint32_t kSharedSkip = 1024;
inline uint32_t shared_base(uint32_t rank) { return ((rank + 1) << 24) | kSharedSkip; }
constexpr uint32_t kLocalSkip = 256;  // local addresses start here, so that 0 is none

enum class State : uint8_t {
    run,
    collect,       // waits until the lanes of `need` stand at the same pc
    warp_barrier,  // bar.warp.sync: waits for the lanes of `need`, at any bar.warp.sync
    barrier,       // waits at a block barrier
};

// Lanes of a warp that stand at the same instruction.
struct Group {
    uint32_t pc = 0, mask = 0, need = 0;
    State state = State::run;
    uint32_t backward = 0;  // backward branches since the group last gave way
    bool released = false;  // the block barrier it waited at is complete: the instruction runs again to take the result
};

struct CopyItem {         // one cp.async of a warp
    uint32_t mask = 0;    // lanes that have not waited for it
    uint32_t flying = 0;  // lanes whose copy has not landed
    uint32_t pc = 0;
    uint8_t bytes = 0;
    uint8_t take[32];    // source bytes; the rest is zero
    uint32_t group[32];  // commit group of each lane
    uint32_t to[32];     // offset in the block's shared memory
    uint64_t from[32];
    uint32_t ticket = 0;  // async clock
    uint32_t block = 0;
    std::vector<uint64_t> mbarriers;
};

struct Barrier {
    uint32_t expected = 0;    // threads; 0: every live thread
    uint32_t arrived = 0;     // threads; the lanes that a warp lacks count too
    uint32_t waiting = 0;     // warps that wait (bit per warp of the block)
    uint32_t seen = 0;        // warps of which lanes arrived in this phase
    uint32_t lanes[32] = {};  // of each warp, that arrived
    bool live = false;        // a phase is open
    uint32_t popc = 0;
    bool all = true, any = false, defined = true;
    uint32_t result_popc = 0;
    bool result_all = true, result_any = false, result_defined = true;
    uint32_t first_pc = 0;
    Knowledge clock, published;
};

struct Block;
struct Cluster;
struct Worker;

struct Warp {
    uint8_t* base[2] = {nullptr, nullptr};  // register file, constant file
    uint32_t* defined = nullptr;            // lanes whose value is defined, per row id
    std::vector<Group> groups;
    uint32_t current = 0;  // index of the running group
    uint32_t live = 0;     // lanes that have not exited
    uint32_t lanes = 0;    // lanes the warp started with
    uint32_t index = 0;    // in the block
    uint32_t slot = 0;     // in the cluster: its clock
    Block* block = nullptr;
    Worker* worker = nullptr;
    uint8_t* local = nullptr;  // 32 lanes of local memory
    uint8_t* local_state = nullptr;
    uint32_t local_stride = 0, local_bytes = 0;  // between lanes; that a lane may use
    std::vector<std::vector<uint32_t>> returns;  // return addresses per lane
    std::deque<CopyItem> copies;
    uint32_t committed[32] = {};  // commit groups closed, per lane
    uint32_t waited[32] = {};     // ticket up to which a lane has waited for its copies
    uint32_t carry = 0;           // CC.CF of add.cc and friends, a bit per lane
    Knowledge clock;              // what this warp knows to have happened
    uint32_t time = 1;            // its own clock
    uint32_t ticket = 0;          // async clock: groups of copies issued
    Knowledge fenced, pending;    // at the last fence; read by strong reads since
    bool has_fence = false;
    uint32_t poll_pc = ~0u, polls = 0;
    uint64_t executed = 0;
    bool done() const { return live == 0; }
};

struct Block {
    Cluster* cluster = nullptr;
    uint32_t rank = 0;
    uint32_t id[3] = {0, 0, 0};
    uint64_t linear = 0;
    std::vector<Warp> warps;
    std::vector<uint8_t> shared, shared_state;
    SharedShadow shadow;
    Barrier barriers[16];
    uint32_t live_warps = 0;
    std::vector<uint8_t> rows, locals, local_states;
    std::vector<uint32_t> defined;
};

struct Cluster {
    std::vector<Block> blocks;
    uint32_t linear = 0;  // in the grid
    uint32_t live_warps = 0;
    uint32_t polls = 0;           // strong loads repeated at one place, in this round over the warps
    uint32_t polling_rounds = 0;  // rounds in a row that had some
    bool polling() const { return polling_rounds >= 4; }
};

template <class T>
inline T* row(Warp& w, uint32_t r) {
    return reinterpret_cast<T*>(w.base[r >> 31] + (r & 0x7fffffffu));
}
inline uint32_t read_predicate(Warp& w, uint32_t r) { return *row<uint32_t>(w, r); }
inline void write_predicate(Warp& w, uint32_t r, uint32_t mask, uint32_t value) {
    uint32_t& p = *row<uint32_t>(w, r);
    p = (p & ~mask) | (value & mask);
}
inline void write_defined(Warp& w, uint16_t id, uint32_t mask, uint32_t value) {
    if (id != kNoId) w.defined[id] = (w.defined[id] & ~mask) | (value & mask);
}
inline uint32_t read_defined(const Warp& w, uint16_t id) { return id == kNoId ? ~0u : w.defined[id]; }
inline int first_lane(uint32_t mask) { return __builtin_ctz(mask); }

#define VGPU_FOR_LANES(lane, mask) \
    for (uint32_t rest_ = (mask), lane = 0; rest_ && (lane = __builtin_ctz(rest_), true); rest_ &= rest_ - 1)

}  // namespace vgpu
