// Copies and fills: linear, 2D and 3D, and through symbols.
#include <cstring>

#include "cudart/capture.h"
#include "cudart/module.h"
#include "cudart/stream.h"
#include "cudart/work.h"

namespace vgpu {
namespace {

// Waiting as the real runtime documents it:
//   pageable source   read before the call returns, also by Async calls
//   pageable target   filled before the call returns, also by Async calls
//   pinned            Async calls read and write it when the stream gets there
//   device to device  never waits
void copy(const char* name, CopyWork c, void* handle, bool async) {
    Runtime& rt = runtime();
    Stream& stream = stream_of(handle);
    if (!check_copy(rt, c)) return;
    const Place dst = rt.place(c.dst), src = rt.place(c.src);
    Work work;
    work.type = abi::node_memcpy;
    work.what = name;
    if (!stream.capture && src.kind == Place::pageable) {
        c.staged = std::make_shared<std::vector<uint8_t>>(c.width * c.height * c.depth);
        uint8_t* to = c.staged->data();
        for (size_t plane = 0; plane < c.depth; plane++)
            for (size_t row = 0; row < c.height; row++, to += c.width)
                std::memcpy(to, c.src + plane * c.src_plane + row * c.src_pitch, c.width);
    }
    const bool on_device = dst.kind == Place::device && src.kind == Place::device;
    const bool host_to_host = dst.host() && src.host() && dst.kind != Place::managed && src.kind != Place::managed;
    const bool pageable_target = dst.kind == Place::pageable && !stream.capture;
    work.copy = std::move(c);
    if (async) {
        auto op = submit(stream, std::move(work));
        if (pageable_target || host_to_host) finish(op);
    } else if (on_device) {
        if (stream.legacy) refuse_implicit_capture();
        rt.forbid_in_capture(name);
        submit(stream, std::move(work));
    } else {
        submit_and_wait(stream, std::move(work), name);
    }
}

CopyWork rows(void* dst, size_t dst_pitch, const void* src, size_t src_pitch, size_t width, size_t height, int kind) {
    CopyWork c = linear(dst, src, width, kind);
    c.height = height;
    c.dst_pitch = dst_pitch;
    c.src_pitch = src_pitch;
    if (width && height && (dst_pitch < width || src_pitch < width))
        fail(kInvalidPitchValue, "a pitch is smaller than the row of " + std::to_string(width) + " bytes");
    return c;
}

Error copy_call(const char* name, void* stream, bool async, CopyWork c) {
    return api(name, Needs::context, [&] {
        copy(name, std::move(c), stream, async);
        return kSuccess;
    });
}

Error rows_call(const char* name, void* stream, bool async, void* dst, size_t dst_pitch, const void* src,
                size_t src_pitch, size_t width, size_t height, int kind) {
    return api(name, Needs::context, [&] {
        copy(name, rows(dst, dst_pitch, src, src_pitch, width, height, kind), stream, async);
        return kSuccess;
    });
}

void* const kOwn = reinterpret_cast<void*>(2);  // the calling thread's default stream

uint8_t* symbol_at(const void* symbol, size_t bytes, size_t offset) {
    Runtime& rt = runtime();
    const auto found = rt.variables_by_host.find(symbol);
    if (found == rt.variables_by_host.end())
        fail(kInvalidSymbol, "no device variable is registered under this address");
    size_t size = 0;
    void* p = found->second.first->load().variable(found->second.second, &size);
    if (!p) fail(kInvalidSymbol, "the image holds no variable " + found->second.second);
    if (bytes > size || offset > size - bytes)
        fail(kInvalidValue, std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of " +
                                found->second.second + ", which has " + std::to_string(size));
    return static_cast<uint8_t*>(p) + offset;
}

Error to_symbol(const char* name, const void* symbol, const void* src, size_t bytes, size_t offset, int kind,
                void* stream, bool async) {
    return api(name, Needs::context, [&] {
        if (kind != abi::host_to_device && kind != abi::device_to_device && kind != abi::default_kind)
            fail(kInvalidMemcpyDirection, "copy kind " + std::to_string(kind) + " to a symbol");
        copy(name, linear(symbol_at(symbol, bytes, offset), src, bytes, kind), stream, async);
        return kSuccess;
    });
}

Error from_symbol(const char* name, void* dst, const void* symbol, size_t bytes, size_t offset, int kind, void* stream,
                  bool async) {
    return api(name, Needs::context, [&] {
        if (kind != abi::device_to_host && kind != abi::device_to_device && kind != abi::default_kind)
            fail(kInvalidMemcpyDirection, "copy kind " + std::to_string(kind) + " from a symbol");
        copy(name, linear(dst, symbol_at(symbol, bytes, offset), bytes, kind), stream, async);
        return kSuccess;
    });
}

Error fill_call(const char* name, void* handle, bool async, FillWork f) {
    return api(name, Needs::context, [&] {
        Runtime& rt = runtime();
        Stream& stream = stream_of(handle);
        if (!check_fill(rt, f)) return kSuccess;
        // Memory that the host can see is filled before a synchronous call returns; device memory is not waited for.
        const bool wait = !async && rt.place(f.dst).kind != Place::device;
        Work work;
        work.type = abi::node_memset;
        work.what = name;
        work.fill = f;
        if (!async && stream.legacy) refuse_implicit_capture();
        if (!async) rt.forbid_in_capture(name);
        auto op = submit(stream, std::move(work));
        if (wait) finish(op);
        return kSuccess;
    });
}

FillWork fill(void* dst, int value, size_t pitch, size_t width, size_t height) {
    FillWork f;
    f.dst = static_cast<uint8_t*>(dst);
    f.value = uint8_t(value);
    f.pitch = pitch;
    f.width = width;
    f.height = height;
    return f;
}

CopyWork box(const abi::Copy3D& p) {
    if (p.src_array || p.dst_array) fail(kNotSupported, "copies of CUDA arrays");
    CopyWork c;
    c.dst_pitch = p.dst.pitch;
    c.src_pitch = p.src.pitch;
    c.dst_plane = p.dst.pitch * p.dst.ysize;
    c.src_plane = p.src.pitch * p.src.ysize;
    c.dst = static_cast<uint8_t*>(p.dst.ptr) + p.dst_pos.z * c.dst_plane + p.dst_pos.y * c.dst_pitch + p.dst_pos.x;
    c.src =
        static_cast<const uint8_t*>(p.src.ptr) + p.src_pos.z * c.src_plane + p.src_pos.y * c.src_pitch + p.src_pos.x;
    c.width = p.extent.width;
    c.height = p.extent.height;
    c.depth = p.extent.depth;
    c.kind = p.kind;
    return c;
}

Error box_call(const char* name, const abi::Copy3D* p, void* stream, bool async) {
    return api(name, Needs::context, [&] {
        if (!p) fail(kInvalidValue, "the parameters are null");
        copy(name, box(*p), stream, async);
        return kSuccess;
    });
}

}  // namespace

CopyWork copy_of(const abi::Copy3D& params) { return box(params); }

VGPU_API Error cudaMemcpy(void* dst, const void* src, size_t n, int kind) {
    return copy_call("cudaMemcpy", nullptr, false, linear(dst, src, n, kind));
}
VGPU_API Error cudaMemcpy_ptds(void* dst, const void* src, size_t n, int kind) {
    return copy_call("cudaMemcpy", kOwn, false, linear(dst, src, n, kind));
}
VGPU_API Error cudaMemcpyAsync(void* dst, const void* src, size_t n, int kind, void* stream) {
    return copy_call("cudaMemcpyAsync", stream, true, linear(dst, src, n, kind));
}
VGPU_API Error cudaMemcpyAsync_ptsz(void* dst, const void* src, size_t n, int kind, void* stream) {
    return cudaMemcpyAsync(dst, src, n, kind, per_thread(stream));
}
VGPU_API Error cudaMemcpy2D(void* dst, size_t dp, const void* src, size_t sp, size_t w, size_t h, int kind) {
    return rows_call("cudaMemcpy2D", nullptr, false, dst, dp, src, sp, w, h, kind);
}
VGPU_API Error cudaMemcpy2D_ptds(void* dst, size_t dp, const void* src, size_t sp, size_t w, size_t h, int kind) {
    return rows_call("cudaMemcpy2D", kOwn, false, dst, dp, src, sp, w, h, kind);
}
VGPU_API Error cudaMemcpy2DAsync(void* dst, size_t dp, const void* src, size_t sp, size_t w, size_t h, int kind,
                                 void* stream) {
    return rows_call("cudaMemcpy2DAsync", stream, true, dst, dp, src, sp, w, h, kind);
}
VGPU_API Error cudaMemcpy2DAsync_ptsz(void* dst, size_t dp, const void* src, size_t sp, size_t w, size_t h, int kind,
                                      void* stream) {
    return cudaMemcpy2DAsync(dst, dp, src, sp, w, h, kind, per_thread(stream));
}
VGPU_API Error cudaMemcpy3D(const abi::Copy3D* p) { return box_call("cudaMemcpy3D", p, nullptr, false); }
VGPU_API Error cudaMemcpy3D_ptds(const abi::Copy3D* p) { return box_call("cudaMemcpy3D", p, kOwn, false); }
VGPU_API Error cudaMemcpy3DAsync(const abi::Copy3D* p, void* stream) {
    return box_call("cudaMemcpy3DAsync", p, stream, true);
}
VGPU_API Error cudaMemcpy3DAsync_ptsz(const abi::Copy3D* p, void* stream) {
    return box_call("cudaMemcpy3DAsync", p, per_thread(stream), true);
}

VGPU_API Error cudaMemcpyToSymbol(const void* symbol, const void* src, size_t n, size_t offset, int kind) {
    return to_symbol("cudaMemcpyToSymbol", symbol, src, n, offset, kind, nullptr, false);
}
VGPU_API Error cudaMemcpyToSymbol_ptds(const void* symbol, const void* src, size_t n, size_t offset, int kind) {
    return to_symbol("cudaMemcpyToSymbol", symbol, src, n, offset, kind, kOwn, false);
}
VGPU_API Error cudaMemcpyToSymbolAsync(const void* symbol, const void* src, size_t n, size_t offset, int kind,
                                       void* s) {
    return to_symbol("cudaMemcpyToSymbolAsync", symbol, src, n, offset, kind, s, true);
}
VGPU_API Error cudaMemcpyToSymbolAsync_ptsz(const void* symbol, const void* src, size_t n, size_t offset, int kind,
                                            void* s) {
    return to_symbol("cudaMemcpyToSymbolAsync", symbol, src, n, offset, kind, per_thread(s), true);
}
VGPU_API Error cudaMemcpyFromSymbol(void* dst, const void* symbol, size_t n, size_t offset, int kind) {
    return from_symbol("cudaMemcpyFromSymbol", dst, symbol, n, offset, kind, nullptr, false);
}
VGPU_API Error cudaMemcpyFromSymbol_ptds(void* dst, const void* symbol, size_t n, size_t offset, int kind) {
    return from_symbol("cudaMemcpyFromSymbol", dst, symbol, n, offset, kind, kOwn, false);
}
VGPU_API Error cudaMemcpyFromSymbolAsync(void* dst, const void* symbol, size_t n, size_t offset, int kind, void* s) {
    return from_symbol("cudaMemcpyFromSymbolAsync", dst, symbol, n, offset, kind, s, true);
}
VGPU_API Error cudaMemcpyFromSymbolAsync_ptsz(void* dst, const void* symbol, size_t n, size_t offset, int kind,
                                              void* s) {
    return from_symbol("cudaMemcpyFromSymbolAsync", dst, symbol, n, offset, kind, per_thread(s), true);
}

VGPU_API Error cudaGetSymbolAddress(void** out, const void* symbol) {
    return api("cudaGetSymbolAddress", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the result's address is null");
        *out = symbol_at(symbol, 0, 0);
        return kSuccess;
    });
}

VGPU_API Error cudaGetSymbolSize(size_t* out, const void* symbol) {
    return api("cudaGetSymbolSize", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the result's address is null");
        *out = runtime().memory->find(symbol_at(symbol, 0, 0))->size;
        return kSuccess;
    });
}

VGPU_API Error cudaMemset(void* dst, int value, size_t n) {
    return fill_call("cudaMemset", nullptr, false, fill(dst, value, n, n, 1));
}
VGPU_API Error cudaMemset_ptds(void* dst, int value, size_t n) {
    return fill_call("cudaMemset", kOwn, false, fill(dst, value, n, n, 1));
}
VGPU_API Error cudaMemsetAsync(void* dst, int value, size_t n, void* stream) {
    return fill_call("cudaMemsetAsync", stream, true, fill(dst, value, n, n, 1));
}
VGPU_API Error cudaMemsetAsync_ptsz(void* dst, int value, size_t n, void* stream) {
    return cudaMemsetAsync(dst, value, n, per_thread(stream));
}
VGPU_API Error cudaMemset2D(void* dst, size_t pitch, int value, size_t w, size_t h) {
    return fill_call("cudaMemset2D", nullptr, false, fill(dst, value, pitch, w, h));
}
VGPU_API Error cudaMemset2D_ptds(void* dst, size_t pitch, int value, size_t w, size_t h) {
    return fill_call("cudaMemset2D", kOwn, false, fill(dst, value, pitch, w, h));
}
VGPU_API Error cudaMemset2DAsync(void* dst, size_t pitch, int value, size_t w, size_t h, void* stream) {
    return fill_call("cudaMemset2DAsync", stream, true, fill(dst, value, pitch, w, h));
}
VGPU_API Error cudaMemset2DAsync_ptsz(void* dst, size_t pitch, int value, size_t w, size_t h, void* stream) {
    return cudaMemset2DAsync(dst, pitch, value, w, h, per_thread(stream));
}

}  // namespace vgpu
