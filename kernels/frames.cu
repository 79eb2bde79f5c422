// Frames that stay on the GPU: between a caller's picture (RGB, or a video decoder's NV12) and a graph's packed RGB.
//
// frame_in        a caller's picture, and reflection around it -> the window that a graph reads
// frame_out       a part of what a graph wrote                 -> the same part of a caller's picture
// frame_thumbnail a caller's picture                           -> the small square that a context graph reads
// deep_in, deep_out, deep_thumbnail: the same for uint16 and float32, RGB or gray, and a graph with float ends
//
// All of them move bytes and do next to no arithmetic: a 1080p frame is 6.2 MB read and 6.4 MB written. A thread of frame_in and of
// frame_out (RGB) makes four pixels of one row, which are three words where the row is aligned; a warp then reads and writes 384
// consecutive bytes. A thread of frame_out (NV12) makes two by two pixels, which share one pair of chroma values.
//
// Colours are integers of 16 fractional bits, so that every GPU, the emulated one and NumPy give the same bytes. NV12 is Y'CbCr of
// limited range: Y' 16 to 235, Cb and Cr 16 to 240. A chroma pair holds for its two by two pixels on the way in, and is their mean on
// the way out.
//
// A graph with float ends has float32 RGB from 0 to 1. A thread of deep_in and of deep_out makes one value, so that a warp reads and
// writes consecutive bytes: of a 1080p frame of uint16, 12.4 MB on one side and 24.9 MB on the other. The arithmetic is NumPy's on the
// host, in the same order, to the last bit: no product is followed by a sum, so nothing is fused. All 65,536 levels survive both ways.

#include <stdint.h>

struct Frame {
  uint8_t* pixels;            // the caller's picture: rows of RGB, or of Y'
  uint8_t* chroma;            // NV12: rows of Cb, Cr; null for RGB
  uint8_t* packed;            // RGB of the graph
  long long pixel_stride;     // bytes from a row to the next
  long long chroma_stride;
  long long packed_stride;
  int height, width;          // of the caller's picture
  int packed_height, packed_width;
  int top, left;              // where the packed part begins in the caller's picture; negative: in the reflection around it
  int luma_gain, red_of_cr, green_of_cb, green_of_cr, blue_of_cb;  // Y'CbCr to RGB, times 65536
  int luma_of[3], cb_of[3], cr_of[3];                              // RGB to Y'CbCr, times 65536
  int bits, channels;         // of the deep kernels' picture: uint16 or float32, gray (1) or RGB (3); their `packed` is float32
};

namespace {

struct Rgb { int r, g, b; };

__device__ int clamped(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

// As NumPy's "reflect": the edge pixel is not repeated; a side of one pixel is repeated, having no reflection.
__device__ int reflected(int place, int length) {
  const int period = length > 1 ? 2 * (length - 1) : 1;
  const int within = (place < 0 ? -place : place) % period;
  return within < period - within ? within : period - within;
}

__device__ Rgb pixel_at(const Frame& frame, int row, int column) {
  if (!frame.chroma) {
    const uint8_t* rgb = frame.pixels + row * frame.pixel_stride + column * 3;
    return {rgb[0], rgb[1], rgb[2]};
  }
  const uint8_t* pair = frame.chroma + row / 2 * frame.chroma_stride + column / 2 * 2;
  const int luma = (frame.pixels[row * frame.pixel_stride + column] - 16) * frame.luma_gain + 32768;
  const int cb = pair[0] - 128, cr = pair[1] - 128;
  return {clamped((luma + cr * frame.red_of_cr) >> 16),
          clamped((luma + cb * frame.green_of_cb + cr * frame.green_of_cr) >> 16),
          clamped((luma + cb * frame.blue_of_cb) >> 16)};
}

__device__ int weighed(const int (&weights)[3], Rgb pixel) {
  return weights[0] * pixel.r + weights[1] * pixel.g + weights[2] * pixel.b;
}

// Four RGB pixels, or those of them that the row has. Whole words where the address allows.
__device__ void store(uint8_t* to, const uint8_t (&bytes)[12], int pixels) {
  if (pixels == 4 && reinterpret_cast<unsigned long long>(to) % 4 == 0) {
#pragma unroll
    for (int word = 0; word < 3; ++word)
      reinterpret_cast<uint32_t*>(to)[word] = bytes[word * 4] | bytes[word * 4 + 1] << 8 | bytes[word * 4 + 2] << 16 |
                                              static_cast<uint32_t>(bytes[word * 4 + 3]) << 24;
    return;
  }
#pragma unroll
  for (int i = 0; i < 12; ++i)
    if (i < pixels * 3) to[i] = bytes[i];
}

}  // namespace

extern "C" __global__ void frame_in(const Frame frame) {
  const int quads = (frame.packed_width + 3) / 4;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  const int row = index / quads, column = index % quads * 4;
  if (row >= frame.packed_height) return;
  const int from_row = reflected(frame.top + row, frame.height);
  const int pixels = frame.packed_width - column < 4 ? frame.packed_width - column : 4;
  uint8_t bytes[12];
#pragma unroll
  for (int i = 0; i < 4; ++i) {  // beyond the row's end too: reflection has a pixel for every place
    const Rgb pixel = pixel_at(frame, from_row, reflected(frame.left + column + i, frame.width));
    bytes[i * 3] = pixel.r;
    bytes[i * 3 + 1] = pixel.g;
    bytes[i * 3 + 2] = pixel.b;
  }
  store(frame.packed + row * frame.packed_stride + column * 3, bytes, pixels);
}

extern "C" __global__ void frame_out(const Frame frame) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (!frame.chroma) {
    const int quads = (frame.packed_width + 3) / 4;
    const int row = index / quads, column = index % quads * 4;
    if (row >= frame.packed_height) return;
    const int pixels = frame.packed_width - column < 4 ? frame.packed_width - column : 4;
    const uint8_t* from = frame.packed + row * frame.packed_stride + column * 3;
    uint8_t bytes[12];
#pragma unroll
    for (int i = 0; i < 12; ++i) bytes[i] = i < pixels * 3 ? from[i] : 0;
    store(frame.pixels + (frame.top + row) * frame.pixel_stride + (frame.left + column) * 3, bytes, pixels);
    return;
  }
  const int pairs = frame.packed_width / 2;  // sides are even where there is chroma
  const int row = index / pairs * 2, column = index % pairs * 2;
  if (row >= frame.packed_height) return;
  Rgb sum = {0, 0, 0};
  for (int i = 0; i < 4; ++i) {
    const uint8_t* from = frame.packed + (row + i / 2) * frame.packed_stride + (column + i % 2) * 3;
    const Rgb pixel = {from[0], from[1], from[2]};
    const int luma = (weighed(frame.luma_of, pixel) + (16 << 16) + 32768) >> 16;
    frame.pixels[(frame.top + row + i / 2) * frame.pixel_stride + frame.left + column + i % 2] = luma;
    sum = {sum.r + pixel.r, sum.g + pixel.g, sum.b + pixel.b};
  }
  uint8_t* pair = frame.chroma + (frame.top + row) / 2 * frame.chroma_stride + frame.left + column;
  pair[0] = (weighed(frame.cb_of, sum) + (128 << 18) + 131072) >> 18;  // of four pixels, so two bits more
  pair[1] = (weighed(frame.cr_of, sum) + (128 << 18) + 131072) >> 18;
}

namespace {

// From 0 to 1. Gray has the same value in every channel.
__device__ float deep_value(const Frame& frame, int row, int column, int channel) {
  const uint8_t* line = frame.pixels + row * frame.pixel_stride;
  const int place = frame.channels == 3 ? column * 3 + channel : column;
  if (frame.bits == 16) return reinterpret_cast<const uint16_t*>(line)[place] / 65535.0f;
  return reinterpret_cast<const float*>(line)[place];
}

}  // namespace

extern "C" __global__ void deep_in(const Frame frame) {
  const int values = frame.packed_width * 3;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  const int row = index / values, place = index % values;
  if (row >= frame.packed_height) return;
  const int from_row = reflected(frame.top + row, frame.height);
  const int from_column = reflected(frame.left + place / 3, frame.width);
  float* line = reinterpret_cast<float*>(frame.packed + row * frame.packed_stride);
  line[place] = deep_value(frame, from_row, from_column, place % 3);
}

extern "C" __global__ void deep_out(const Frame frame) {
  const int values = frame.packed_width * frame.channels;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  const int row = index / values, place = index % values;
  if (row >= frame.packed_height) return;
  const float* from = reinterpret_cast<const float*>(frame.packed + row * frame.packed_stride);
  float value = from[place];
  if (frame.channels == 1) {  // the channels' mean; of equal ones exactly their value
    const float* rgb = from + place * 3;
    value = rgb[0] == rgb[1] && rgb[1] == rgb[2] ? rgb[0] : (rgb[0] + rgb[1] + rgb[2]) / 3.0f;
  }
  uint8_t* line = frame.pixels + (frame.top + row) * frame.pixel_stride;
  const int at = frame.left * frame.channels + place;
  if (frame.bits == 16)
    reinterpret_cast<uint16_t*>(line)[at] = static_cast<uint16_t>(rintf(fminf(fmaxf(value * 65535.0f, 0.0f), 65535.0f)));
  else
    reinterpret_cast<float*>(line)[at] = value;
}

// The cells of frame_thumbnail, in uint8 of values from 0 to 1. Rows are added up first, then columns, as NumPy does.
extern "C" __global__ void deep_thumbnail(const Frame frame) {
  const int side = frame.packed_width;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= side * side * 3) return;
  const int row = index / (side * 3), column = index / 3 % side, channel = index % 3;
  const int most_y = (frame.height + side - 1) / side, most_x = (frame.width + side - 1) / side;
  const int samples_y = most_y < 8 ? most_y : 8, samples_x = most_x < 8 ? most_x : 8;
  float sum = 0.0f;
  for (int x = 0; x < samples_x; ++x) {
    const long long place_x = column * samples_x + x;
    float added = 0.0f;
    for (int y = 0; y < samples_y; ++y) {
      const long long place_y = row * samples_y + y;
      added += deep_value(frame, (2 * place_y + 1) * frame.height / (2 * side * samples_y),
                          (2 * place_x + 1) * frame.width / (2 * side * samples_x), channel);
    }
    sum += added;
  }
  const int samples = samples_y * samples_x;
  frame.packed[row * frame.packed_stride + column * 3 + channel] = static_cast<uint8_t>(rintf(sum * 255.0f / samples));
}

// Each cell is the mean of up to 8 x 8 pixels spread evenly over its part of the picture, exact halves to even, as thumbnail() of
// impasto/images makes it. A thread makes one cell: reading them takes microseconds, and no more than 64 pixels a cell are read.
extern "C" __global__ void frame_thumbnail(const Frame frame) {
  const int side = frame.packed_width;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= side * side) return;
  const int row = index / side, column = index % side;
  const int most_y = (frame.height + side - 1) / side, most_x = (frame.width + side - 1) / side;
  const int samples_y = most_y < 8 ? most_y : 8, samples_x = most_x < 8 ? most_x : 8;
  int sum[3] = {0, 0, 0};
  for (int y = 0; y < samples_y; ++y)
    for (int x = 0; x < samples_x; ++x) {
      const long long place_y = row * samples_y + y, place_x = column * samples_x + x;
      const Rgb pixel = pixel_at(frame, (2 * place_y + 1) * frame.height / (2 * side * samples_y),
                                 (2 * place_x + 1) * frame.width / (2 * side * samples_x));
      sum[0] += pixel.r;
      sum[1] += pixel.g;
      sum[2] += pixel.b;
    }
  const int samples = samples_y * samples_x;
  for (int channel = 0; channel < 3; ++channel) {
    const int whole = sum[channel] / samples, twice = sum[channel] % samples * 2;
    const bool up = twice > samples || (twice == samples && whole % 2 == 1);
    frame.packed[row * frame.packed_stride + column * 3 + channel] = whole + up;
  }
}
