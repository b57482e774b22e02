// Fat binaries: the images that nvcc embeds in a shared library, as text and machine code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace vgpu {

class FatbinError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

enum class ImageKind : uint8_t { ptx = 1, cubin = 2 };
enum class Compression : uint8_t { none, lz4, zstd };

struct FatImage {
    ImageKind kind = ImageKind::ptx;
    Compression compression = Compression::none;
    uint32_t arch = 0;           // 80, 90, …
    bool arch_specific = false;  // sm_90a: for exactly that part
    uint64_t flags = 0;
    std::string identifier;    // source file, with -lineinfo
    std::string options;       // of ptxas
    std::string_view payload;  // points into the region; as stored, padding included
    uint64_t compressed_size = 0, uncompressed_size = 0;
};

// A region: header and images back to back. `available` bytes may be read; nothing behind them is.
std::vector<FatImage> list_images(const void* region, size_t available);

// All regions in the bytes of a host ELF file (section .nv_fatbin), or of a file that begins with a region.
std::vector<FatImage> list_images_in_file(std::string_view file);

// What __cudaRegisterFatBinary gets: a wrapper whose region lies in this process.
std::vector<FatImage> list_images_of_wrapper(const void* wrapper);

// PTX text without padding, or the cubin's bytes.
std::string unpack(const FatImage&);

// The PTX for a part of compute capability major.minor: an arch-specific image of exactly that part, else the highest
// image not above it. Null if there is none. A driver would prefer machine code; what runs here is always PTX.
const FatImage* choose_ptx(const std::vector<FatImage>&, int major, int minor);
// The machine code a driver would load there: same major, minor not above (arch-specific: exactly).
const FatImage* choose_cubin(const std::vector<FatImage>&, int major, int minor);
std::string describe(const std::vector<FatImage>&);  // "PTX sm_80 lz4, cubin sm_80": for messages

// Raw LZ4 block; throws unless it gives exactly `size` bytes.
std::string lz4_block(std::string_view block, size_t size);
// Through the system's libzstd.so.1; throws if that is not installed.
std::string zstd_frame(std::string_view frame, size_t size);

// What ptxas decided about a kernel, from a cubin.
struct KernelFacts {
    uint32_t registers = 0;      // per thread
    uint32_t static_shared = 0;  // bytes a block
    uint32_t max_threads = 0;    // of .maxntid/.reqntid; 0: not given
    uint32_t frame_bytes = 0;    // stack frame a thread: .local arrays and spills
    uint32_t stack_bytes = 0;    // with everything it calls
    uint32_t param_bytes = 0;
    uint32_t barriers = 0;  // named barriers a block
    uint32_t code_bytes = 0;
};
std::map<std::string, KernelFacts> cubin_facts(std::string_view cubin);

}  // namespace vgpu
