// One launch in progress and the worker threads that run its clusters.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "exec/warp.h"

namespace vgpu {

struct Launch {
    Launch(const KernelImage& i, const LaunchConfig& c, const Options& o, Memory& m, const DeviceModel& d)
        : image(i), config(c), options(o), memory(m), device(d) {}
    const KernelImage& image;
    const LaunchConfig& config;
    const Options& options;
    Memory& memory;
    const DeviceModel& device;
    uint32_t id = 0;                             // number of the launch, for shadows
    std::vector<uint8_t> params;                 // parameter block
    std::vector<const Allocation*> allocations;  // sorted by base
    uint32_t shared_bytes = 0;                   // static + dynamic
    uint64_t clusters = 0;
    uint64_t most_resident = 1;   // clusters the device could hold at once, shared out over the workers
    std::vector<uint32_t> order;  // of clusters; empty: 0, 1, 2 ...
    std::atomic<uint64_t> next{0}, executed{0}, unfinished{0};
    std::atomic<bool> stop{false};
    SyncTable sync;
    std::mutex atomics[64];  // striped by address

    std::mutex mutex;  // of what follows
    std::vector<Report> reports, notes;
    std::map<std::pair<std::string, uint32_t>, size_t> known_reports, known_notes;
    std::string printed;
};

struct Profile {  // of one instruction, kept by one worker
    uint64_t executed = 0, lanes = 0, global_bytes = 0, shared_bytes = 0, local_bytes = 0, sectors = 0, sectors_min = 0,
             wavefronts = 0, wavefronts_min = 0;
    // The last address pattern and its cost: deltas to the first lane repeat from request to request.
    uint32_t pattern_mask = 0, pattern_phase = ~0u, pattern_cost = 0, pattern_min = 0;
    uint32_t pattern[32];
};

class Random {  // splitmix64
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next() {
        uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    uint32_t below(uint32_t n) { return uint32_t(next() % n); }

  private:
    uint64_t state_;
};

struct Worker {
    explicit Worker(Launch& l, uint64_t seed);
    Launch& launch;
    std::vector<Profile> profile;  // per pc
    Random random;
    const Allocation* recent[4] = {};
    uint32_t requests = 0;  // to memory
    uint64_t async_copies = 0, barriers = 0, warps = 0, blocks = 0;
    uint64_t executed = 0;  // since last added to launch.executed
    std::vector<std::unique_ptr<Cluster>> resident, spare;
    bool races, definedness, counters;

    void run();  // until no cluster is left or the launch stops
  private:
    bool step_cluster(Cluster&);  // one round over its warps; true if one of them went on
    std::unique_ptr<Cluster> start(uint64_t index);
    void deadlock(const std::vector<Cluster*>&);
    void add_executed();
};

// run.cpp: at most `quantum` instructions of a warp; true if it executed any.
bool run_warp(Warp&, uint32_t quantum);
// What every group of a warp is waiting for.
std::string describe(const Warp&);

// Makes a report. Fatal ones stop the launch; the others are counted and the launch goes on to find more.
void report(Warp&, const Op&, int lane, const char* code, const std::string& text, bool fatal = false);
void note(Warp&, const Op&, int lane, const char* code, const std::string& text);
std::string hex(uint64_t);

// barrier.cpp: a warp has no live lane left; barriers that wait for it may complete.
void warp_finished(Warp&);
// async_copy.cpp
void land_some_copies(Warp&);  // Async::random, between instructions
void check_copies_at_exit(Warp&, const Op&, uint32_t lanes);

// Lanes of a request, found: host addresses of data and of the bytes' states.
struct Target {
    uint8_t* data[32];
    uint8_t* state[32];  // null: always defined, not tracked
    uint32_t mask = 0;
    bool counted = false;  // bytes touched are marked
};
struct Access {
    uint32_t bytes = 0;  // per lane
    uint32_t align = 0;
    bool write = false, atomic = false, async = false;
    bool constant = false;  // constant space: not counted
};
// access.cpp: bounds, alignment, counters and races of a request; false after a fatal report.
bool access_global(Warp&, const Op&, uint32_t mask, const uint64_t* address, const Access&, Target&);
bool access_shared(Warp&, const Op&, uint32_t mask, const uint64_t* address, const Access&, Target&);
bool access_local(Warp&, const Op&, uint32_t mask, const uint64_t* address, const Access&, Target&);
bool access_param(Warp&, const Op&, uint32_t mask, const uint64_t* address, const Access&, Target&);
// By op.space, generic addresses by their tag (lanes of one request may not mix windows of different kinds here:
// callers split with next_window).
bool access_space(Warp&, const Op&, Space, uint32_t mask, const uint64_t* address, const Access&, Target&);
// Lanes of `mask` whose generic address lies in the same window as the first lane's; addresses lose their tag.
uint32_t next_window(uint32_t mask, const uint64_t* generic, uint64_t* address, Space* space);
// Addresses of a request: row + immediate.
void request_addresses(Warp&, const Op&, uint64_t* address);
// Definedness of `bytes` bytes at offset in each lane of a target.
uint32_t defined_lanes(const Target&, uint32_t offset, uint32_t bytes);
void set_defined(const Target&, uint32_t offset, uint32_t bytes, uint32_t defined);

const Allocation* find_allocation(Worker&, uint64_t address);
AccessKind access_kind(const Warp&, const Access&);
void report_race(Warp&, const Op&, int lane, const char* space, uint64_t address, bool write, const Racer&);

// Releases and acquisitions through words of memory (atomic.cpp). key: address, or shared offset with the block's mark.
void release_word(Warp&, uint64_t key, bool release);
void acquire_word(Warp&, uint64_t key, bool acquire);
uint64_t sync_key(Warp&, Space, uint64_t address);
void fence(Warp&);
void advance_clock(Warp&);

}  // namespace vgpu
