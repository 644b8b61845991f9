#include "product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pool.h"

namespace griffin {
namespace {

#include "packed/rows.h"

int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// Whether inputs go in groups that have a scale each.
bool grouped(Format format) {
  return format == Format::int4 || format == Format::int2 || format == Format::int3;
}

int64_t padded(const Matrix& m) {
  return round_up(m.in, grouped(m.format) ? kBlock : m.format == Format::int8 ? 4 : 2);
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
  const int bits = m.format == Format::int4 ? 4 : 2, deep = 32 / bits;
  const uint8_t* block = panel + k / kBlock * block_bytes(bits);
  const int64_t group = k % kBlock / kGroup, inner = k % kGroup;
  const uint8_t all = block[(group * bits + inner / deep) * 64 + lane * 4 + inner % 4];
  const int value = all >> inner % deep / 4 * bits & ((1 << bits) - 1);
  const float scale = half_to_float(block + 128 * bits + group * 32 + lane * 2);
  if (m.format == Format::int3) {
    const int64_t group_at = row / kPanel * (padded(m) / kGroup) + k / kGroup;
    const uint8_t* low = m.low + group_at * (kLowBytes / 2);
    const int third = low[lane * 4 + inner % 4] >> low_at(static_cast<int>(inner / 4)) & 1;
    return (2 * value + third - 3.5f) * scale;
  }
  return static_cast<float>(bits == 4 ? value - 8 : 2 * value - 3) * scale;
}

int64_t panels_of(const Matrix& m) { return round_up(m.out, kPanel) / kPanel; }

// A product that is not prepared yet, in memory of product_bytes.
Product product_of(const Matrix& m, const Results& to, const void* x, Type x_type, int64_t rows,
                   uint8_t* memory) {
  Product p{};
  p.format = m.format;
  p.data = m.data;
  p.scale = m.scale;
  p.low = m.low;
  p.out = m.out;
  p.in = m.in;
  p.in_padded = padded(m);
  p.panel_bytes = m.panel_bytes;
  p.x = x;
  p.x_type = x_type;
  p.bias = m.bias;
  p.bias_type = m.bias_type;
  p.y = to.y;
  p.y_type = to.type;
  p.rows = rows;
  p.pairs = active().pairs && p.format == Format::bf16 && x_type == Type::bf16;
  const int wide = grouped(p.format) ? 1 : p.format == Format::bf16 && !p.pairs ? 4 : 2;
  p.row_bytes = round_up(p.in_padded * wide, 64);
  p.prepared = memory;
  const int64_t held = round_up(rows, kRowsTogether), groups = held * (p.in_padded / kGroup);
  p.row_sum = reinterpret_cast<int64_t*>(memory + p.row_bytes * held);
  p.row_scale = reinterpret_cast<float*>(p.row_sum + held);
  p.group_scale = p.row_scale + held;
  p.group_offset = reinterpret_cast<int32_t*>(p.group_scale + groups);
  return p;
}

void prepare(const Product& p, int threads) {
  parallel(p.rows < 4 ? 1 : threads, p.rows, 4,
           [&](int64_t first, int64_t last) { active().prepare(p, first, last); });
}

// One row of a prepared product.
Product one_row(const Product& p, int64_t row) {
  Product one = p;
  const int64_t groups = row * (p.in_padded / kGroup);
  one.rows = 1;
  one.prepared += row * p.row_bytes;
  one.row_sum += row;
  one.row_scale += row;
  one.group_scale += groups;
  one.group_offset += groups;
  one.y = static_cast<uint8_t*>(p.y) + row * p.out * (p.y_type == Type::bf16 ? 2 : 4);
  return one;
}

// Panels and the rows that read them.
using Chosen = std::vector<std::pair<int64_t, int64_t>>;

// The largest value of each panel; a row that holds NaN holds nothing else.
std::vector<float> largest_of_panels(const float* values, int64_t out) {
  std::vector<float> largest(static_cast<size_t>((out + kPanel - 1) / kPanel), -INFINITY);
  for (int64_t first = 0; first < out; first += kPanel) {
    float lanes[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    const auto take = [&](int64_t at, int lane) {
      lanes[lane] = values[at] > lanes[lane] ? values[at] : lanes[lane];
    };
    if (first + kPanel <= out) {
      for (int64_t at = first; at < first + kPanel; at += 4) {
        for (int lane = 0; lane < 4; ++lane) take(at + lane, lane);
      }
    } else {
      for (int64_t at = first; at < out; ++at) take(at, 0);
    }
    largest[static_cast<size_t>(first / kPanel)] = *std::max_element(lanes, lanes + 4);
  }
  return largest;
}

// Add the `most` panels of a row that hold its largest values, of equals the first.
void add_best(const float* values, int64_t out, int64_t most, int64_t row, Chosen& to) {
  const std::vector<float> best = largest_of_panels(values, out);
  std::vector<float> sorted = best;
  const auto last = sorted.begin() + (most - 1);
  std::nth_element(sorted.begin(), last, sorted.end(), std::greater<>());
  const float least = *last;
  const auto above = [&](float value) { return value > least; };
  int64_t equal = most - std::count_if(best.begin(), best.end(), above);
  for (size_t panel = 0; panel < best.size(); ++panel) {
    if (best[panel] > least || (best[panel] == least && equal-- > 0)) {
      to.push_back({static_cast<int64_t>(panel), row});
    }
  }
}

}  // namespace

int64_t product_bytes(const Matrix& m, int64_t rows) {
  const int64_t wide = m.format == Format::bf16 ? 4 : 2;
  const int64_t held = round_up(rows, kRowsTogether);
  return round_up(padded(m) * wide, 64) * held + held * (8 + 4 + 8 * (padded(m) / kGroup));
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
    products[n] = product_of(matrices[n], results[n], x, x_type, rows, memory);
    pieces[n + 1] = pieces[n] + (panels_of(matrices[n]) + unit - 1) / unit;
  }
  prepare(products[0], threads);
  const int64_t depth = rows <= 16 ? INT64_MAX : kernels.deepest;
  const int64_t bytes = unit * (matrices[0].panel_bytes < depth ? matrices[0].panel_bytes : depth);
  parallel(threads, pieces[count], bytes < piece ? piece / bytes : 1,
           [&](int64_t first, int64_t last) {
    for (int n = 0; n < count; ++n) {
      const int64_t begin = (first > pieces[n] ? first : pieces[n]) - pieces[n];
      const int64_t end = (last < pieces[n + 1] ? last : pieces[n + 1]) - pieces[n];
      if (begin >= end) continue;
      const int64_t panels = panels_of(matrices[n]);
      kernels.panels(products[n], begin * unit, end * unit < panels ? end * unit : panels);
    }
  });
}

void multiply_screened(const Matrix& preview, const Matrix& exact, int64_t most, const void* x,
                   Type x_type, int64_t rows, float* y, uint8_t* memory, int threads) {
  const Results results{y, Type::f32};
  multiply(&preview, &results, 1, x, x_type, rows, memory, threads);
  Chosen chosen;
  for (int64_t row = 0; row < rows; ++row) {
    add_best(y + row * exact.out, exact.out, std::min(most, panels_of(exact)), row, chosen);
  }
  // A panel that several rows read comes from memory once.
  if (rows > 1) std::sort(chosen.begin(), chosen.end());
  const Product whole = product_of(exact, results, x, x_type, rows, memory);
  prepare(whole, threads);
  parallel(threads, static_cast<int64_t>(chosen.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      const auto [panel, row] = chosen[static_cast<size_t>(n)];
      active().panels(one_row(whole, row), panel, panel + 1);
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
