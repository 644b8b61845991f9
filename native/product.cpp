#include "product.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "pool.h"

namespace griffin {
namespace {

#include "packed/rows.h"

int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

int64_t padded(const Matrix& m) {
  return round_up(m.in, m.format == Format::int4 ? kBlock4 : m.format == Format::int8 ? 4 : 2);
}

float half_to_float(const uint8_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, 2);
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float value;
  if (exponent == 31) {
    value = fraction ? NAN : INFINITY;
  } else if (exponent) {
    value = std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  } else {
    value = std::ldexp(static_cast<float>(fraction), -24);
  }
  return bits & 0x8000 ? -value : value;
}

// Weight k of output row `row`, as griffin/ops/packed_linear/packed.py lays it down.
float weight(const Matrix& m, int64_t row, int64_t k) {
  const int64_t lane = row % kPanel;
  const uint8_t* panel = m.data + row / kPanel * m.panel_bytes;
  if (m.format == Format::bf16) {
    uint16_t bits;
    std::memcpy(&bits, panel + k / 2 * 64 + lane * 4 + k % 2 * 2, 2);
    return from_bf16(bits);
  }
  if (m.format == Format::int8) {
    return (panel[k / 4 * 64 + lane * 4 + k % 4] - 128.0f) * m.scale[row];
  }
  const uint8_t* block = panel + k / kBlock4 * kBlock4Bytes;
  const int64_t group = k % kBlock4 / 32, inner = k % 32;
  const uint8_t both = block[group * 256 + inner / 8 * 64 + lane * 4 + inner % 4];
  const float value = static_cast<float>(inner % 8 < 4 ? both & 15 : both >> 4);
  return (value - 8) * half_to_float(block + 512 + group * 32 + lane * 2);
}

}  // namespace

int64_t product_bytes(const Matrix& m, int64_t rows) {
  const int64_t wide = m.format == Format::bf16 ? 4 : 2;
  const int64_t held = round_up(rows, kRowsTogether);
  return round_up(padded(m) * wide, 64) * held + held * (8 + 4 + 8 * (padded(m) / kGroup4));
}

void multiply(const Matrix* matrices, const Results* results, int count, const void* x, Type x_type,
              int64_t rows, uint8_t* memory, int threads) {
  const Kernels& kernels = active();
  constexpr int kMost = 4;
  Product products[kMost];
  int64_t pieces[kMost + 1] = {};
  // Few rows: pieces small enough to even out the threads. Many: as many panels as stay in a core's
  // cache while all rows go past them.
  const int64_t unit = rows <= 16 ? 1 : kTogether, piece = rows <= 16 ? 32 << 10 : kernels.piece;
  for (int n = 0; n < count; ++n) {
    const Matrix& m = matrices[n];
    Product& p = products[n];
    p = Product{};
    p.format = m.format;
    p.data = m.data;
    p.scale = m.scale;
    p.out = m.out;
    p.in = m.in;
    p.in_padded = padded(m);
    p.panel_bytes = m.panel_bytes;
    p.x = x;
    p.x_type = x_type;
    p.bias = m.bias;
    p.bias_type = m.bias_type;
    p.y = results[n].y;
    p.y_type = results[n].type;
    p.rows = rows;
    p.pairs = kernels.pairs && p.format == Format::bf16 && x_type == Type::bf16;
    const int wide = p.format == Format::int4 ? 1 : p.format == Format::bf16 && !p.pairs ? 4 : 2;
    p.row_bytes = round_up(p.in_padded * wide, 64);
    p.prepared = memory;
    const int64_t held = round_up(rows, kRowsTogether), groups = held * (p.in_padded / kGroup4);
    p.row_sum = reinterpret_cast<int64_t*>(memory + p.row_bytes * held);
    p.row_scale = reinterpret_cast<float*>(p.row_sum + held);
    p.group_scale = p.row_scale + held;
    p.group_offset = reinterpret_cast<int32_t*>(p.group_scale + groups);
    pieces[n + 1] = pieces[n] + (round_up(m.out, kPanel) / kPanel + unit - 1) / unit;
  }
  const Product& first_product = products[0];
  parallel(rows < 4 ? 1 : threads, rows, 4,
           [&](int64_t first, int64_t last) { kernels.prepare(first_product, first, last); });
  const int64_t depth = rows <= 16 ? INT64_MAX : kernels.deepest;
  const int64_t bytes = unit * (matrices[0].panel_bytes < depth ? matrices[0].panel_bytes : depth);
  parallel(threads, pieces[count], bytes < piece ? piece / bytes : 1,
           [&](int64_t first, int64_t last) {
    for (int n = 0; n < count; ++n) {
      const int64_t begin = (first > pieces[n] ? first : pieces[n]) - pieces[n];
      const int64_t end = (last < pieces[n + 1] ? last : pieces[n + 1]) - pieces[n];
      if (begin >= end) continue;
      const int64_t panels = round_up(matrices[n].out, kPanel) / kPanel;
      kernels.panels(products[n], begin * unit, end * unit < panels ? end * unit : panels);
    }
  });
}

void check_ids(const Matrix& m, const int64_t* ids, int64_t count) {
  for (int64_t n = 0; n < count; ++n) {
    if (ids[n] < 0 || ids[n] >= m.out) {
      throw std::invalid_argument("id " + std::to_string(ids[n]) + " is none of the " +
                                  std::to_string(m.out) + " rows there are");
    }
  }
}

void look_up(const Matrix& m, const int64_t* ids, int64_t count, float scale, Type type,
             void* out) {
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t k = 0; k < m.in; ++k) {
      const float value = weight(m, ids[n], k);
      if (type == Type::bf16) {
        const float rounded = from_bf16(to_bf16(value));
        static_cast<uint16_t*>(out)[n * m.in + k] = to_bf16(rounded * scale);
      } else {
        static_cast<float*>(out)[n * m.in + k] = value * scale;
      }
    }
  }
}

void pack_pairs(const uint16_t* from, int64_t rows, int64_t inputs, uint32_t* to, int threads) {
  const int64_t pairs = (inputs + 1) / 2, whole = inputs / 2, panels = (rows + kPanel - 1) / kPanel;
  parallel(threads, panels, 8, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) {
      uint32_t* out = to + panel * pairs * kPanel;
      // A cache line of each row at a time.
      for (int64_t begin = 0; begin < pairs; begin += kPanel) {
        const int64_t end = begin + kPanel < whole ? begin + kPanel : whole;
        for (int64_t lane = 0; lane < kPanel; ++lane) {
          const int64_t row = panel * kPanel + lane;
          const uint16_t* weights = from + row * inputs;
          const int64_t stop = row < rows ? end : begin;
          for (int64_t k = begin; k < stop; ++k) {
            std::memcpy(&out[k * kPanel + lane], weights + 2 * k, 4);
          }
          for (int64_t k = stop; k < begin + kPanel && k < pairs; ++k) {
            // Of an odd number the last one with a zero; zeros for rows there are not.
            out[k * kPanel + lane] = row < rows ? weights[inputs - 1] : 0;
          }
        }
      }
    }
  });
}

}  // namespace griffin
