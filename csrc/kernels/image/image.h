// Resize an RGB picture and cut it into tiles, the thumbnail of the whole picture last, in one pass over the source
// rows.
//
//   resized = bicubic(picture, columns * size, rows * size)         antialiased: a = -0.5, support 2 * max(scale, 1)
//   tiles[k] = resized box (k % columns, k / columns), size x size  k = 0 .. columns * rows - 1
//   tiles[last] = bicubic(picture, size, size)                      with thumbnail
//
// The resize is Pillow's for 8-bit pixels, bit for bit: weights normalised in float64 and rounded to 22 fractional
// bits, a horizontal pass rounded and clipped to uint8, then a vertical pass of the same kind. Pillow 13 does the
// vertical pass first where height - new height > 2 * max(width - new width, 0); `tall_first` asks for that, and such a
// target reads the source in a pass of its own.
//
//   name      shape                     dtype   notes
//   bands     list of [h_i, width, 3]   uint8   the picture's rows from top to bottom; pixels 3 or 4 bytes apart (all
//   alike),
//                                               channels adjacent, any row stride
//   tiles     [T, size, size, 3]        uint8   contiguous, apart from bands
//
// Deterministic: integer arithmetic, so the same bits for any thread count and instruction set.
// CPU workspace per thread: 48 * width bytes of transposed source rows and, for the resized picture and the thumbnail
// each, 6 * columns * size * (window + 9) bytes of horizontally resized rows, where window is half the vertical
// filter's length. Errors: UnsupportedError with the whole problem.
//
// CUDA (image_sm80, compute capability 8.0 and newer): one band in device memory, every problem of the contract; a
// launch for each pass of each target, at most four, bytes by words and 16 at a time where addresses and rows are
// multiples of them. Workspace: tables of weights and one target's rows between its passes, taken for the call, which
// waits for them. Floor (image_bytes): for each target the source once, the rows between written and read, tiles once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/isa.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace ivk {

constexpr int64_t kMaxSide = 1 << 24;       // positions stay exact in float32, which Pillow uses for the source box
constexpr int kStripRows = 16;              // source rows that are resized together, one per lane
constexpr int kWeightBits = 22;             // fractional bits of a weight
constexpr int kLowBits = 15;                // a weight is high * 2^15 + low, so that both halves fit 16-bit multiplies
constexpr int kPairBytes = 2 * kStripRows;  // one channel of two neighbouring columns over a strip

// The weights of two neighbouring source positions (2j, 2j + 1), split in halves. The first position sits in the low
// bits.
struct WeightPair {
    int32_t high, low;
};

// Which source positions one output position reads: pairs [first, first + count), weights from `offset` on.
struct Window {
    int64_t first, count, offset;
};

struct ResizeAxis {
    std::vector<Window> windows;  // one per output position
    std::vector<WeightPair> weights;
    int64_t longest = 0;  // pairs of the longest window
};

ResizeAxis resize_axis(int64_t source, int64_t target);

struct ResizeTarget {
    const ResizeAxis* x;       // columns * size windows
    const ResizeAxis* y;       // rows * size windows; the identity after `before`
    const ResizeAxis* before;  // vertical pass that comes before the horizontal one, or null
    int64_t columns;
    uint8_t* tiles;
};

struct TileParams {
    const uint8_t* const* rows;  // [height] pointers to source rows
    int64_t width, height;
    int pixel_bytes;  // 3 or 4
    int64_t size;
    ResizeTarget targets[2];
    int num_targets;
};

// Writes band `band` of `bands`: that share of the rows of every target.
using TileBand = void (*)(const TileParams&, int64_t band, int64_t bands);
struct ImageTable {
    TileBand tile_band;
};
IVK_DECLARE_TABLE(ImageTable, image_table)

// Checks the contract, then runs on at most `threads` threads (0: the default cap).
void tile_pixels(const std::vector<TensorView>& bands, int64_t columns, int64_t rows, int64_t size, bool thumbnail,
                 bool tall_first, const TensorView& tiles, int threads);

// The checked problem of one band, for CUDA; throws UnsupportedError.
struct ImageParams {
    const uint8_t* pixels;
    int64_t stride;  // bytes between rows
    int pixel_bytes;
    int64_t width, height, columns, rows, size;
    bool thumbnail, tall_first;
    uint8_t* tiles;
};
void check_tiles(int64_t columns, int64_t rows, int64_t size, bool thumbnail, const TensorView& tiles);
void check_band(const TensorView& band, int64_t width, int64_t pixel_bytes);
ImageParams image_problem(const TensorView& pixels, int64_t columns, int64_t rows, int64_t size, bool thumbnail,
                          bool tall_first, const TensorView& tiles);
std::string describe(const ImageParams&);
bool vertical_first(const ImageParams&, int64_t rows, int64_t columns);
int64_t image_bytes(const ImageParams&);

bool supports_image_sm80(const ImageParams&, const Device&, std::string* why);
struct ImagePass;  // image_pass.h
void image_sm80(const ImagePass&, Stream);
// Throws UnsupportedError with every variant's reason. Waits for the stream.
void image_cuda(const ImageParams&, const Device&, Stream);

}  // namespace ivk
