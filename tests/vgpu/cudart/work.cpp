// Execution of enqueued work, and the checks a call makes before it enqueues.
#include "cudart/work.h"

#include <cstring>

#include "cudart/capture.h"
#include "cudart/stream.h"

namespace vgpu {
namespace {

size_t span(size_t width, size_t height, size_t depth, size_t pitch, size_t plane) {
    return (depth - 1) * plane + (height - 1) * pitch + width;
}

// Memory that was released between the call and the work: hardware may or may not notice, we always do.
bool still_there(Runtime& rt, const Work& work, const void* p) {
    const Allocation* found = rt.memory->find_any(p);
    if (!found || !found->freed) return true;
    Report report;
    report.code = "use-after-free";
    report.text = std::string(work.what) + " ran after its memory was released: " + rt.describe(p);
    rt.report(report);
    rt.sticky = kIllegalAddress;
    return false;
}

void run_copy(Runtime& rt, const Work& work) {
    const CopyWork& c = work.copy;
    if (!still_there(rt, work, c.dst) || (!c.staged && !still_there(rt, work, c.src))) return;
    const bool to_device = rt.place(c.dst).kind == Place::device;
    const bool from_device = !c.staged && rt.place(c.src).kind == Place::device;
    const uint8_t* packed = c.staged ? c.staged->data() : nullptr;
    for (size_t plane = 0; plane < c.depth; plane++)
        for (size_t row = 0; row < c.height; row++) {
            uint8_t* to = c.dst + plane * c.dst_plane + row * c.dst_pitch;
            const uint8_t* from = packed ? packed : c.src + plane * c.src_plane + row * c.src_pitch;
            if (packed) packed += c.width;
            if (from_device && !to_device && rt.options.definedness) {
                const size_t bad = rt.memory->first_undefined(from, c.width);
                if (bad < c.width) {
                    Report report;
                    report.code = "undefined";
                    report.text = std::string(work.what) + " hands the host bytes that were never written, first at " +
                                  rt.describe(from + bad);
                    rt.report(report);
                }
            }
            if (from_device && to_device) rt.memory->copy_definedness(to, from, c.width);
            std::memmove(to, from, c.width);
            if (to_device && !from_device) rt.memory->mark_defined(to, c.width);
        }
}

void run_fill(Runtime& rt, const Work& work) {
    const FillWork& f = work.fill;
    if (!still_there(rt, work, f.dst)) return;
    for (size_t plane = 0; plane < f.depth; plane++)
        for (size_t row = 0; row < f.height; row++) {
            uint8_t* to = f.dst + plane * f.plane + row * f.pitch;
            if (f.element == 1)
                std::memset(to, int(f.value), f.width);
            else
                for (size_t i = 0; i < f.width; i++) std::memcpy(to + i * f.element, &f.value, f.element);
            rt.memory->mark_defined(to, f.width * f.element);
        }
}

void run_host(Runtime& rt, const HostWork& host) {
    in_callback() = true;
    if (host.function) host.function(host.data);
    if (host.callback) host.callback(host.stream, rt.sticky, host.data);
    in_callback() = false;
}

// Throws unless [p, p + bytes) lies inside what `place` says holds p.
void inside(Runtime& rt, const Place& place, const void* p, size_t bytes, const char* side) {
    const auto address = reinterpret_cast<uint64_t>(p);
    if (place.kind != Place::pageable && (bytes > place.size || address - place.base > place.size - bytes))
        fail(kInvalidValue, std::string(side) + " ends outside its allocation: " + std::to_string(bytes) +
                                " bytes at " + rt.describe(p));
    // Released memory, or the zone around an allocation; around registered memory lies other memory of the program.
    const Allocation* near = place.kind == Place::pageable ? rt.memory->find_any(p) : nullptr;
    if (near && !near->adopted) fail(kInvalidValue, std::string(side) + " is not live memory: " + rt.describe(p));
}

}  // namespace

void Work::run(Runtime& rt) const {
    if (rt.sticky != kSuccess && type != abi::node_mem_free) return;
    switch (type) {
        case abi::node_kernel:
            return run_kernel(rt, kernel);
        case abi::node_memcpy:
            return run_copy(rt, *this);
        case abi::node_memset:
            return run_fill(rt, *this);
        case abi::node_host:
            return run_host(rt, host);
        case abi::node_mem_free:
            return release_memory(rt, release, what);
        case abi::node_graph:
            for (const Work& work : *graph) work.run(rt);
            return;
        default:
            return;
    }
}

CopyWork linear(void* dst, const void* src, size_t bytes, int kind) {
    CopyWork c;
    c.dst = static_cast<uint8_t*>(dst);
    c.src = static_cast<const uint8_t*>(src);
    c.width = bytes;
    c.kind = kind;
    return c;
}

bool check_copy(Runtime& rt, CopyWork& c) {
    if (c.kind < abi::host_to_host || c.kind > abi::default_kind)
        fail(kInvalidMemcpyDirection, "copy kind " + std::to_string(c.kind) + "; allowed: 0 to 4");
    if (c.width == 0 || c.height == 0 || c.depth == 0) return false;
    if (!c.dst || !c.src) fail(kInvalidValue, c.dst ? "the source is null" : "the destination is null");
    if (c.height > 1 && (c.dst_pitch < c.width || c.src_pitch < c.width))
        fail(kInvalidPitchValue, "a pitch is smaller than the row of " + std::to_string(c.width) + " bytes");
    const Place dst = rt.place(c.dst), src = rt.place(c.src);
    inside(rt, dst, c.dst, span(c.width, c.height, c.depth, c.dst_pitch, c.dst_plane), "the destination");
    inside(rt, src, c.src, span(c.width, c.height, c.depth, c.src_pitch, c.src_plane), "the source");
    const bool wants_src_device = c.kind == abi::device_to_host || c.kind == abi::device_to_device;
    const bool wants_dst_device = c.kind == abi::host_to_device || c.kind == abi::device_to_device;
    // Pinned and managed memory may stand on either side.
    if (c.kind != abi::default_kind) {
        if (wants_dst_device && dst.kind == Place::pageable)
            fail(kInvalidValue, "the destination is host memory: " + rt.describe(c.dst));
        if (wants_src_device && src.kind == Place::pageable)
            fail(kInvalidValue, "the source is host memory: " + rt.describe(c.src));
        if (!wants_dst_device && dst.kind == Place::device)
            fail(kInvalidValue, "the destination is device memory: " + rt.describe(c.dst));
        if (!wants_src_device && src.kind == Place::device)
            fail(kInvalidValue, "the source is device memory: " + rt.describe(c.src));
    }
    return true;
}

bool check_fill(Runtime& rt, const FillWork& f) {
    if (f.width == 0 || f.height == 0 || f.depth == 0) return false;
    if (!f.dst) fail(kInvalidValue, "the destination is null");
    if (f.height > 1 && f.pitch < f.width * f.element) fail(kInvalidPitchValue, "the pitch is smaller than the row");
    const Place dst = rt.place(f.dst);
    if (dst.kind == Place::pageable) fail(kInvalidValue, "the destination is no device memory: " + rt.describe(f.dst));
    inside(rt, dst, f.dst, span(f.width * f.element, f.height, f.depth, f.pitch, f.plane), "the destination");
    return true;
}

std::shared_ptr<StreamWork> submit(Stream& stream, Work work) {
    Runtime& rt = runtime();
    if (stream.capture) {
        add_to_capture(stream, std::move(work));
        return nullptr;
    }
    if (stream.legacy) refuse_implicit_capture();
    return enqueue(stream, [&rt, work = std::move(work)] { work.run(rt); });
}

void submit_and_wait(Stream& stream, Work work, const char* call) {
    if (stream.legacy) refuse_implicit_capture();
    runtime().forbid_in_capture(call);
    finish(submit(stream, std::move(work)));
}

}  // namespace vgpu
