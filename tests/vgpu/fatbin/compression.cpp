// LZ4 blocks by our own decoder; zstd through the system's library, loaded only when an image needs it.
#include <dlfcn.h>

#include <cstring>

#include "fatbin/fatbin.h"

namespace vgpu {

std::string lz4_block(std::string_view block, size_t size) {
    std::string out;
    const auto fail = [&](const char* problem) { return FatbinError(std::string("LZ4 block: ") + problem); };
    // No stream expands more than 255-fold; a size that claims it is refused before memory is taken.
    if (size / 256 > block.size()) throw fail("impossible size");
    out.reserve(size);
    size_t at = 0;
    const auto byte = [&]() -> size_t {
        if (at >= block.size()) throw fail("cut off");
        return static_cast<unsigned char>(block[at++]);
    };
    const auto length = [&](size_t nibble) {
        if (nibble == 15)
            for (size_t more = 255; more == 255;) nibble += more = byte();
        return nibble;
    };
    while (at < block.size()) {
        const size_t token = byte();
        const size_t literals = length(token >> 4);
        if (literals > block.size() - at || literals > size - out.size()) throw fail("literals out of bounds");
        out.append(block, at, literals);
        at += literals;
        if (at == block.size()) break;  // the last sequence has literals only
        const size_t low = byte(), offset = low | byte() << 8;
        const size_t match = length(token & 15) + 4;
        if (offset == 0 || offset > out.size() || match > size - out.size()) throw fail("match out of bounds");
        for (size_t i = 0; i < match; ++i) out.push_back(out[out.size() - offset]);  // may overlap what it writes
    }
    if (out.size() != size) throw fail("wrong size");
    return out;
}

std::string zstd_frame(std::string_view frame, size_t size) {
    using Decompress = size_t (*)(void*, size_t, const void*, size_t);
    using IsError = unsigned (*)(size_t);
    static void* const library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        throw FatbinError(
            "fat binary: zstd image, but libzstd.so.1 is not installed (build with LZ4: --compress-mode=speed)");
    static const auto decompress = reinterpret_cast<Decompress>(dlsym(library, "ZSTD_decompress"));
    static const auto is_error = reinterpret_cast<IsError>(dlsym(library, "ZSTD_isError"));
    if (!decompress || !is_error) throw FatbinError("fat binary: libzstd.so.1 without ZSTD_decompress");
    std::string out(size, '\0');
    const size_t result = decompress(out.data(), size, frame.data(), frame.size());
    if (is_error(result)) throw FatbinError("zstd frame: damaged");
    if (result != size) throw FatbinError("zstd frame: wrong size");
    return out;
}

}  // namespace vgpu
