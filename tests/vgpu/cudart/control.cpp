// vgpu_*: what tests ask of the virtual GPU beside the CUDA calls. Strings live until the thread's next call.
#include <cstdio>

#include "cudart/module.h"
#include "cudart/stream.h"

namespace vgpu {
namespace {

thread_local std::string answer;

const char* give(std::string text) {
    answer = std::move(text);
    return answer.c_str();
}

std::string json(const Dim3& d) {
    return "[" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + "]";
}

template <class Body>
int guarded(Body&& body) {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    try {
        body();
        return 0;
    } catch (const std::exception& e) {
        last_message() = e.what();
        return 1;
    }
}

const char* const kKinds[] = {"device", "pinned", "managed", "module", "constant"};

}  // namespace

// Calls that the program made and the virtual GPU does not implement fail, and are findings too.
Error missing_call(const char* name) {
    std::fprintf(stderr, "vgpu: %s is not implemented by the virtual GPU\n", name);
    return api(name, Needs::nothing, [&]() -> Error {
        Report report;
        report.code = "unsupported";
        report.text = std::string(name) + " is not implemented by the virtual GPU";
        report.opcode = name;
        runtime().reports.push_back(report);  // printed above, whatever `print` says
        fail(kNotSupported, report.text);
    });
}

VGPU_API int vgpu_version() { return 1; }

// 0, or 1 and vgpu_last_message if this processor cannot run the engine.
VGPU_API int vgpu_activate() {
    return guarded([] {
        if (!processor_suffices())
            throw std::runtime_error("the virtual GPU needs a processor with AVX2, FMA and F16C");
        runtime().active = true;
    });
}
// Calls are refused again; nothing is forgotten.
VGPU_API void vgpu_deactivate() { runtime().active = false; }
VGPU_API int vgpu_active() { return runtime().active; }

// 0, or 1 and vgpu_last_message. Keys: device, sms, memory, host, print, and the engine's options.
VGPU_API int vgpu_configure(const char* key, const char* value) {
    return guarded([&] { runtime().configure(key, value); });
}

// hard: memory, streams, graphs and loaded modules go too, as in a new process.
VGPU_API void vgpu_reset(int hard) {
    guarded([&] { runtime().reset(hard != 0); });
}

// Runs what is enqueued in any stream.
VGPU_API void vgpu_finish() {
    guarded([] { finish_all(); });
}

VGPU_API const char* vgpu_last_message() { return last_message().c_str(); }
VGPU_API int vgpu_sticky_error() { return runtime().sticky; }

VGPU_API const char* vgpu_reports() {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    return give(to_json(runtime().reports));
}

VGPU_API const char* vgpu_notes() {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    return give(to_json(runtime().notes));
}

VGPU_API int vgpu_launch_count() { return int(runtime().launches.size()); }
VGPU_API int vgpu_report_count() { return int(runtime().reports.size()); }

// One object per launch since the last reset; with_lines adds counts per PTX line.
VGPU_API const char* vgpu_counters(int with_lines) {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    std::string out = "[";
    for (const LaunchRecord& r : runtime().launches) {
        if (out.size() > 1) out += ",\n";
        out += "{\"kernel\":" + json_quote(r.kernel) + ",\"grid\":" + json(r.grid) + ",\"block\":" + json(r.block) +
               ",\"dynamic_smem\":" + std::to_string(r.dynamic_smem) +
               ",\"static_smem\":" + std::to_string(r.static_smem) + ",\"registers\":" + std::to_string(r.registers) +
               ",\"registers_from_cubin\":" + (r.registers_from_cubin ? "true" : "false") +
               ",\"local_bytes\":" + std::to_string(r.local_bytes) +
               ",\"blocks_per_sm\":" + std::to_string(r.blocks_per_sm) +
               ",\"counters\":" + r.counters.json(with_lines != 0) + "}";
    }
    return give(out + "]");
}

// PTX instructions by kernel, with how often they ran over all launches.
VGPU_API const char* vgpu_coverage() {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    std::string out = "{";
    for (const auto& entry : runtime().coverage) {
        out += (out.size() > 1 ? ",\n" : "") + json_quote(entry.first) +
               ":{\"launches\":" + std::to_string(entry.second.launches) + ",\"lines\":[";
        bool first = true;
        for (const Counters::Line& line : entry.second.lines) {
            const auto& files = entry.second.files;
            out += std::string(first ? "" : ",") + "{\"ptx_line\":" + std::to_string(line.ptx_line) +
                   ",\"opcode\":" + json_quote(line.opcode) + ",\"function\":" + json_quote(line.function) +
                   ",\"source\":" + json_quote(line.file < files.size() ? files[line.file] : "") +
                   ",\"source_line\":" + std::to_string(line.source_line) +
                   ",\"executed\":" + std::to_string(line.executed) + ",\"lanes\":" + std::to_string(line.lanes) + "}";
            first = false;
        }
        out += "]}";
    }
    return give(out + "}");
}

VGPU_API const char* vgpu_counter_table(int launch) {
    std::lock_guard<std::recursive_mutex> lock(runtime().mutex);
    const auto& launches = runtime().launches;
    if (launch < 0 || size_t(launch) >= launches.size()) return "";
    const LaunchRecord& r = launches[size_t(launch)];
    return give(r.kernel + "\ncounts, not times; grid " + json(r.grid) + ", block " + json(r.block) +
                ", shared memory " + std::to_string(r.static_smem) + " + " + std::to_string(r.dynamic_smem) +
                " bytes, " + std::to_string(r.registers) + " registers (" +
                (r.registers_from_cubin ? "ptxas" : "estimate from PTX") + "), " + std::to_string(r.local_bytes) +
                " local bytes, " + std::to_string(r.blocks_per_sm) + " blocks a multiprocessor\n" + r.counters.table());
}

// What the program has not given back: allocations, streams, events, graphs.
VGPU_API const char* vgpu_leaks() {
    Runtime& rt = runtime();
    std::lock_guard<std::recursive_mutex> lock(rt.mutex);
    std::string out = "[";
    auto add = [&](const std::string& item) { out += (out.size() > 1 ? "," : "") + item; };
    for (const Allocation* a : rt.memory->live())
        if (a->kind != MemKind::module_global && a->kind != MemKind::module_constant)
            add("{\"what\":" + json_quote(a->what) + ",\"kind\":\"" + kKinds[size_t(a->kind)] +
                "\",\"bytes\":" + std::to_string(a->size) + ",\"id\":" + std::to_string(a->id) + "}");
    for (const auto& stream : rt.streams)
        if (!stream->legacy && !stream->per_thread && stream->alive)
            add("{\"what\":\"stream\",\"id\":" + std::to_string(stream->id) + "}");
    for (size_t i = 0; i < rt.events.size(); i++) add("{\"what\":\"event\"}");
    for (size_t i = 0; i < rt.graphs.size(); i++) add("{\"what\":\"graph\"}");
    for (size_t i = 0; i < rt.graph_execs.size(); i++) add("{\"what\":\"executable graph\"}");
    return give(out + "]");
}

VGPU_API const char* vgpu_devices() {
    std::string out = "[";
    for (const std::string& name : device_model_names()) out += (out.size() > 1 ? "," : "") + json_quote(name);
    return give(out + "]");
}

// Configuration in the words of vgpu_configure, so that it can be put back, and what is going on.
VGPU_API const char* vgpu_state() {
    Runtime& rt = runtime();
    std::lock_guard<std::recursive_mutex> lock(rt.mutex);
    size_t pending = 0;
    for (const auto& stream : rt.streams) pending += stream->queue.size();
    const char* const orders[] = {"lazy", "eager", "random"};
    std::string out = "{\"config\":{\"device\":" + json_quote(rt.device_name);
    auto text = [&](const char* key, const std::string& value) {
        out += std::string(",\"") + key + "\":" + json_quote(value);
    };
    auto number = [&](const char* key, auto value) { text(key, std::to_string(value)); };
    const Options& o = rt.options;
    text("host", orders[size_t(rt.host_order)]);
    text("async", orders[size_t(o.async)]);
    number("sms", rt.device.sms);
    number("memory", rt.memory_limit);
    number("print", int(rt.print));
    number("lines", int(rt.lines));
    number("seed", o.seed);
    number("threads", o.threads);
    number("races", int(o.races));
    number("bounds", int(o.bounds));
    number("definedness", int(o.definedness));
    number("counters", int(o.counters));
    number("strict_warp", int(o.strict_warp));
    number("split", int(o.split));
    text("mutate", o.mutate);
    number("truncating_mma", int(o.truncating_mma));
    number("starve", o.starve_cta);
    number("budget", o.instruction_budget);
    out += "},\"active\":" + std::string(rt.active ? "true" : "false");
    auto count = [&](const char* key, uint64_t value) {
        out += std::string(",\"") + key + "\":" + std::to_string(value);
    };
    count("used", rt.memory->used());
    count("peak", rt.memory->peak());
    count("pending", pending);
    count("calls", rt.api_calls);
    count("sticky", uint64_t(rt.sticky));
    return give(out + "}");
}

}  // namespace vgpu
