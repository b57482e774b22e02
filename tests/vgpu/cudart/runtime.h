// State of the stand-in runtime: one device, its memory, streams and findings, behind one lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cudart/abi.h"
#include "cudart/errors.h"
#include "exec/engine.h"

namespace vgpu {

struct Stream;
struct Event;
struct StreamWork;
struct Graph;
struct GraphExec;
struct Capture;
struct Kernel;
struct Binary;
struct Pool;

// When work in streams runs. lazy: at the last moment a host call allows, and independent streams in an order that no
// correct program minds (latest first); eager: at once; random: at any moment, in any legal order, by seed.
enum class HostOrder : uint8_t { lazy, eager, random };

struct LaunchRecord {
    std::string kernel;
    Dim3 grid, block;
    uint32_t dynamic_smem = 0, static_smem = 0, registers = 0, local_bytes = 0;
    bool registers_from_cubin = false;
    int blocks_per_sm = 0;
    Counters counters;
};

// How often each PTX instruction of a kernel was executed, over all launches.
struct Coverage {
    std::vector<Counters::Line> lines;
    std::vector<std::string> files;
    uint64_t launches = 0;
    void add(const Counters&);
};

// Where an address lies, for copies and cudaPointerGetAttributes.
struct Place {
    enum Kind : uint8_t { pageable, pinned, device, managed } kind = pageable;
    uint64_t base = 0, size = 0;
    bool host() const { return kind == pageable || kind == pinned || kind == managed; }
};

class Runtime {
  public:
    Runtime();

    std::recursive_mutex mutex;
    std::atomic<bool> active{false};
    bool print = true;   // reports also go to stderr
    bool lines = false;  // launch records keep their counts per PTX line

    std::string device_name;
    DeviceModel device;
    uint64_t memory_limit = 0;
    Options options;
    HostOrder host_order = HostOrder::lazy;
    std::mt19937_64 random;
    std::unique_ptr<Memory> memory;

    Error sticky = kSuccess;
    std::vector<Report> reports, notes;
    std::vector<LaunchRecord> launches;
    std::map<std::string, Coverage> coverage;  // by kernel; a soft reset keeps it
    uint64_t api_calls = 0;

    // Flags of host memory by its base: registered (cudaHostRegister) and allocated.
    std::map<uint64_t, unsigned> registered;
    std::map<uint64_t, unsigned> host_flags;

    std::vector<std::unique_ptr<Binary>> binaries;
    std::map<const void*, Kernel*> kernels_by_host;
    std::set<const void*> kernel_handles;
    std::map<const void*, std::pair<Binary*, std::string>> variables_by_host;

    std::vector<std::unique_ptr<Stream>> streams;  // [0] legacy, then per-thread and created ones
    std::set<const void*> events, graphs, graph_execs;
    std::vector<std::unique_ptr<Capture>> captures;
    std::vector<std::unique_ptr<Pool>> pools;  // [0] the device's default pool
    Pool* current_pool = nullptr;
    std::map<uint64_t, Pool*> pooled;  // base of an allocation -> its pool
    uint64_t next_id = 1;

    void choose_device(const std::string& name);  // throws std::runtime_error
    void configure(const std::string& key, const std::string& value);
    // Forgets findings and errors. hard: also memory, streams, graphs and loaded modules, as a new process would.
    void reset(bool hard);

    Place place(const void*) const;
    std::string describe(const void*) const;

    void report(Report);

    // Throws cudaErrorStreamCaptureUnsupported (and spoils the capture) if a capture forbids unsafe calls now.
    void forbid_in_capture(const char* call);

  private:
    void start();
};

Runtime& runtime();
bool processor_suffices();  // the engine is built for x86-64-v3

// Error of the calling thread: cudaGetLastError and cudaPeekAtLastError.
Error& last_error();
std::string& last_message();
// Set while a host function runs: it may not call the runtime.
bool& in_callback();

// What a call needs of the device: after a sticky error, `context` calls fail with it.
enum class Needs : uint8_t { nothing, context };

// Entry of every API call: activation, lock, sticky error, last error, reasons in words.
class Call {
  public:
    Call(const char* name, Needs needs);
    ~Call();
    Call(const Call&) = delete;
    Error refused() const { return refused_; }
    Error finish(Error code, const char* why = nullptr);

  private:
    const char* name_;
    Needs needs_;
    Error refused_ = kSuccess;
    std::unique_lock<std::recursive_mutex> lock_;
};

template <class Body>
Error api(const char* name, Needs needs, Body&& body) {
    Call call(name, needs);
    if (call.refused() != kSuccess) return call.refused();
    try {
        return call.finish(body());
    } catch (const ApiError& e) {
        return call.finish(e.code, e.what());
    } catch (const std::bad_alloc&) {
        return call.finish(kMemoryAllocation, "the host is out of memory");
    } catch (const std::exception& e) {
        return call.finish(kUnknown, e.what());
    }
}

}  // namespace vgpu
