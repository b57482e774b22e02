// Front of the engine: a parsed module made runnable, and launches of its kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checks/counters.h"
#include "checks/memory.h"
#include "checks/report.h"

namespace vgpu {

struct Module;  // ptx/ir.h

struct Dim3 {
    uint32_t x = 1, y = 1, z = 1;
    uint64_t count() const { return uint64_t(x) * y * z; }
};

struct DeviceModel {
    std::string name;
    int major = 8, minor = 0, sms = 1;
    uint64_t global_bytes = 0;
    uint32_t smem_per_sm = 0, smem_per_block = 0, smem_optin = 0;  // bytes; per_block is the limit without opt-in
    uint32_t regs_per_sm = 65536, max_threads_per_sm = 2048, max_blocks_per_sm = 32, l2_bytes = 0;
    uint32_t clock_khz = 0, memory_clock_khz = 0, memory_bus_bits = 0;
};
// a100, l4, rtx4090, h100, t4; null for another name.
const DeviceModel* device_model(const std::string& name);
std::vector<std::string> device_model_names();

struct LaunchConfig {
    Dim3 grid, block, cluster{1, 1, 1};
    uint32_t dynamic_smem = 0;
    const void* const* args = nullptr;  // one pointer per kernel parameter
};

struct Options {
    enum Async : uint8_t { lazy, eager, random };
    Async async = lazy;  // when asynchronous copies land: at the last legal moment, at issue, or at any moment between
    uint64_t seed = 0;   // 0: warps and blocks in order; else a warp order and quanta drawn from it
    int threads = 1;     // workers over clusters
    bool races = true, bounds = true, definedness = true, counters = true;
    bool strict_warp = true;      // lanes of a warp need bar.warp.sync between a write and another lane's access
    bool split = false;           // groups of lanes that have parted run in an order drawn from the seed
    bool truncating_mma = false;  // accumulate as tensor cores do: aligned, truncated blocks of products
    int starve_cta = -1;          // this block runs only when no other can
    uint64_t instruction_budget = 4000000000ull;  // warp instructions per launch
    uint32_t max_reports = 100;
    // "KERNEL@LINE:delete" runs KERNEL without the instruction of this PTX line (one without a result), ":+1" and ":-1"
    // change the groups of a cp.async.wait_group, ":mask" makes 0x7fffffff of a shuffle's member mask; ",LINE:..."
    // changes one more. For tests of the checks: what do they find in a kernel that lacks a synchronisation?
    std::string mutate;
};
// VGPU_ASYNC=lazy|eager|random, VGPU_SEED, VGPU_THREADS, VGPU_RACES, VGPU_BOUNDS, VGPU_DEFINEDNESS, VGPU_COUNTERS,
// VGPU_STRICT_WARP, VGPU_SPLIT, VGPU_TRUNCATING_MMA, VGPU_STARVE, VGPU_BUDGET (0/1 or numbers) over the defaults above.
// Throws std::runtime_error on a bad value.
Options options_from_env();
// One "key=value" of the same keys in lower case without VGPU_; throws std::runtime_error.
void set_option(Options&, const std::string& key, const std::string& value);

struct LaunchResult {
    bool ok = true;  // false: at least one report; the launch must fail
    std::vector<Report> reports;
    std::vector<Report> notes;  // worth knowing, not a fault
    Counters counters;
    std::string printed;  // what the kernel's printf wrote
};

struct ParamInfo {
    uint64_t offset = 0, size = 0;  // in the parameter block
    uint32_t align = 1;
};

struct KernelInfo {
    std::string name;
    std::vector<ParamInfo> params;
    uint32_t static_smem = 0, local_bytes = 0;  // local: per thread
    uint32_t max_threads = 1024;                // product of .maxntid / .reqntid, else 1024
    uint32_t reqntid[3] = {0, 0, 0};
    uint32_t registers = 0;   // 32-bit rows live at once by our liveness, an estimate of ptxas' count
    std::string undecodable;  // first instruction that could not be decoded, empty if none
};

// A module made runnable: variables live in `memory`, every kernel is decoded at construction. An instruction that is
// not known does not fail here but at the launch of a kernel that holds it, as a report "unsupported" naming opcode and
// line.
class Program {
  public:
    Program(Module&& module, Memory& memory, const DeviceModel& device);
    ~Program();
    Program(const Program&) = delete;

    const KernelInfo* kernel(const std::string& name) const;  // null if there is none
    std::vector<std::string> kernels() const;
    std::vector<std::string> refused() const;  // "<PTX line> <opcode>: <why>" of all that the kernels cannot execute
    void* variable(const std::string& name, size_t* bytes) const;  // null if there is none
    // Runs the whole grid. Not reentrant for one Memory: callers serialise launches.
    LaunchResult launch(const std::string& kernel, const LaunchConfig&, const Options&);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace vgpu
