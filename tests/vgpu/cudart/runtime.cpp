// The runtime's state, its configuration and the entry of every call.
#include "cudart/runtime.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cudart/capture.h"
#include "cudart/module.h"
#include "cudart/pool.h"
#include "cudart/stream.h"

namespace vgpu {
namespace {

thread_local Error thread_error = kSuccess;
thread_local std::string thread_message;
thread_local bool thread_in_callback = false;
thread_local int depth = 0;

uint64_t parse_number(const std::string& key, const std::string& value, uint64_t low, uint64_t high) {
    char* end = nullptr;
    const unsigned long long number = std::strtoull(value.c_str(), &end, 0);
    if (value.empty() || *end || value[0] == '-' || number < low || number > high)
        throw std::runtime_error(key + "=" + value + "; allowed: " + std::to_string(low) + " to " +
                                 std::to_string(high));
    return number;
}

constexpr uint32_t kDefaultSms = 4;  // persistent kernels stay cheap and still loop over several tiles

uint64_t half_of_host_memory() { return uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGE_SIZE)) / 2; }

const char* env(const char* name) { return std::getenv(name); }

}  // namespace

Runtime& runtime() {
    // Never destroyed: programs unregister their fat binaries from exit handlers.
    static Runtime* const instance = new Runtime();
    return *instance;
}

Error& last_error() { return thread_error; }
std::string& last_message() { return thread_message; }
bool& in_callback() { return thread_in_callback; }

bool processor_suffices() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
    return true;
#endif
}

Runtime::Runtime() {
    try {
        options = options_from_env();
        choose_device(env("VGPU_DEVICE") ? env("VGPU_DEVICE") : "a100");
        device.sms = kDefaultSms;
        for (const char* key : {"sms", "memory", "host", "print", "lines"}) {
            std::string name = std::string("VGPU_") + key;
            std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return char(toupper(c)); });
            if (const char* value = env(name.c_str())) configure(key, value);
        }
    } catch (const std::exception& e) {
        std::fprintf(stderr, "vgpu: %s\n", e.what());
        std::abort();
    }
    active = env("VGPU") && std::string(env("VGPU")) == "1" && processor_suffices();
    start();
}

// What a process has before its first call. Must not ask for runtime(): its constructor comes here.
void Runtime::start() {
    random.seed(options.seed);
    streams.clear();
    streams.push_back(std::make_unique<Stream>());
    streams.front()->legacy = true;
    streams.front()->id = next_id++;
    pools.clear();
    pools.push_back(std::make_unique<Pool>());
    current_pool = pools.front().get();
    pooled.clear();
    memory = std::make_unique<Memory>();
    memory->set_limit(memory_limit);
}

void Runtime::choose_device(const std::string& name) {
    const DeviceModel* model = device_model(name);
    if (!model) {
        std::string known;
        for (const std::string& other : device_model_names()) known += (known.empty() ? "" : ", ") + other;
        throw std::runtime_error("device=" + name + "; allowed: " + known);
    }
    const int sms = device_name.empty() ? int(kDefaultSms) : device.sms;
    device_name = name;
    device = *model;
    device.sms = sms;
    if (!memory_limit) memory_limit = std::min(device.global_bytes, half_of_host_memory());
}

void Runtime::configure(const std::string& key, const std::string& value) {
    if (key == "device") {
        if (memory && memory->used()) throw std::runtime_error("device=" + value + ": memory is in use; reset first");
        choose_device(value);
        for (const auto& binary : binaries) binary->unload();
    } else if (key == "sms") {
        device.sms = int(parse_number(key, value, 1, 1024));
    } else if (key == "memory") {
        memory_limit = parse_number(key, value, 1, ~0ull);
        if (memory) memory->set_limit(memory_limit);
    } else if (key == "print") {
        print = parse_number(key, value, 0, 1) != 0;
    } else if (key == "lines") {
        lines = parse_number(key, value, 0, 1) != 0;
    } else if (key == "host") {
        if (value == "lazy" || value == "eager" || value == "random")
            host_order = value == "lazy" ? HostOrder::lazy : value == "eager" ? HostOrder::eager : HostOrder::random;
        else
            throw std::runtime_error("host=" + value + "; allowed: lazy, eager, random");
    } else {
        set_option(options, key, value);
        if (key == "seed") random.seed(options.seed);
    }
}

void Runtime::reset(bool hard) {
    drop_captures();
    drop_all_work();
    sticky = kSuccess;
    thread_error = kSuccess;
    thread_message.clear();
    reports.clear();
    notes.clear();
    launches.clear();
    random.seed(options.seed);
    if (!hard) return;
    coverage.clear();
    for (auto at = binaries.begin(); at != binaries.end();) {
        (*at)->unload();
        if ((*at)->library) {
            for (const auto& kernel : (*at)->kernels) kernel_handles.erase(kernel.get());
            at = binaries.erase(at);
        } else {
            for (const auto& kernel : (*at)->kernels) kernel->max_dynamic_smem = kernel->carveout = -1;
            ++at;
        }
    }
    for (const void* event : events) delete static_cast<const Event*>(event);
    for (const void* graph : graphs) delete static_cast<const Graph*>(graph);
    for (const void* exec : graph_execs) delete static_cast<const GraphExec*>(exec);
    events.clear();
    graphs.clear();
    graph_execs.clear();
    registered.clear();
    host_flags.clear();
    start();
}

void Coverage::add(const Counters& counters) {
    launches++;
    if (lines.empty()) {
        lines = counters.lines;
        files = counters.files;
        return;
    }
    // One kernel of one image: the same instructions in the same order.
    for (size_t i = 0; i < lines.size() && i < counters.lines.size(); i++) {
        lines[i].executed += counters.lines[i].executed;
        lines[i].lanes += counters.lines[i].lanes;
        lines[i].sectors += counters.lines[i].sectors;
        lines[i].sectors_min += counters.lines[i].sectors_min;
        lines[i].wavefronts += counters.lines[i].wavefronts;
        lines[i].wavefronts_min += counters.lines[i].wavefronts_min;
    }
}

Place Runtime::place(const void* p) const {
    Place place;
    if (const Allocation* found = memory->find(p)) {
        place.base = found->base;
        place.size = found->size;
        place.kind = found->kind == MemKind::pinned_host ? Place::pinned
                     : found->kind == MemKind::managed   ? Place::managed
                                                         : Place::device;
    }
    return place;
}

std::string Runtime::describe(const void* p) const { return memory->describe(reinterpret_cast<uint64_t>(p)); }

void Runtime::report(Report found) {
    if (print && reports.size() < 20) std::fprintf(stderr, "vgpu: %s\n", to_string(found).c_str());
    reports.push_back(std::move(found));
}

Call::Call(const char* name, Needs needs) : name_(name), needs_(needs) {
    Runtime& rt = runtime();
    if (!rt.active) {
        static std::atomic<bool> said{false};
        if (!said.exchange(true))
            std::fprintf(stderr,
                         "vgpu: this libcudart.so.13 is a simulator for tests; it refuses every call until "
                         "vgpu_activate() is called or VGPU=1 is set (first refused: %s)\n",
                         name);
        refused_ = last_error() = kInitializationError;
        last_message() = "the virtual GPU is not activated";
        return;
    }
    if (in_callback()) {
        refused_ = kNotPermitted;
        last_message() = std::string(name) + " may not be called from a host function";
        return;
    }
    lock_ = std::unique_lock<std::recursive_mutex>(rt.mutex);
    rt.api_calls++;
    if (depth++ == 0) make_progress(rt);
    if (needs == Needs::context && rt.sticky != kSuccess) {
        refused_ = last_error() = rt.sticky;
        last_message() = std::string(name) + ": an earlier kernel failed; see the reports";
    }
}

Call::~Call() {
    if (lock_.owns_lock()) depth--;
}

Error Call::finish(Error code, const char* why) {
    // Work that this call ran may have killed the context.
    if (code == kSuccess && needs_ == Needs::context && runtime().sticky != kSuccess && lock_.owns_lock()) {
        code = runtime().sticky;
        why = "a kernel failed; see the reports";
    }
    if (code != kSuccess) {
        last_error() = code;
        last_message() = std::string(name_) + ": " + (why ? why : error_text(code));
    }
    return code;
}

}  // namespace vgpu
