// What all instruction sets share: reading and rounding numbers, quantising rows, writing results.
// Included by each set's file within its own unnamed namespace, so that no set's code can serve
// another.

inline float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float out;
  __builtin_memcpy(&out, &wide, 4);
  return out;
}

inline uint16_t to_bf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  // NaN stays NaN.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

inline float number(float value) { return value; }
inline float number(uint16_t bits) { return from_bf16(bits); }

// The step in which `count` numbers are rounded to whole ones up to `top`, from their largest
// magnitude; its inverse is 0 where that is 0. A value that is not finite makes the step NaN, and
// with it the row's results.
template <class X>
inline float step_of(const X* x, int64_t count, int top, float& inverse) {
  int32_t most = 0;
  for (int64_t k = 0; k < count; ++k) {
    const float value = number(x[k]);
    int32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  float largest;
  __builtin_memcpy(&largest, &most, 4);
  inverse = 0;
  if (most >= 0x7f800000) return __builtin_nanf("");
  if (largest < 1e-30f) return 0;
  inverse = static_cast<float>(top) / largest;
  return largest / static_cast<float>(top);
}

// Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
inline int32_t round_to_int(float value) {
  const float shifted = value + 12582912.0f;
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, 4);
  return bits - 0x4b400000;
}

// Quantise a row in steps of largest / 32512: about 15 bits and a sign, finer than bfloat16 near
// the top. `Digits`: as two signed bytes, all high ones and then all low ones; otherwise as int16.
template <bool Digits, class X>
inline void quantise_row(const Product& p, int64_t row) {
  const X* x = static_cast<const X*>(p.x) + row * p.in;
  uint8_t* to = p.prepared + row * p.row_bytes;
  int8_t* high = reinterpret_cast<int8_t*>(to);
  int8_t* low = high + p.in_padded;
  int16_t* whole = reinterpret_cast<int16_t*>(to);
  float inverse;
  p.row_scale[row] = step_of(x, p.in, kLargest, inverse);
  int64_t total = 0, at = 0;
  // Inlined with numbers where a block is whole, which is what makes a loop of vectors of it.
  const auto block = [&](int64_t given, int64_t stored) __attribute__((always_inline)) {
    int32_t q[32], sum = 0;
    for (int64_t k = 0; k < given; ++k) {
      const int32_t rounded = round_to_int(number(x[at + k]) * inverse);
      q[k] = inverse != 0 ? rounded : 0;
    }
    for (int64_t k = given; k < 32; ++k) q[k] = 0;
    for (int k = 0; k < 32; ++k) sum += q[k];
    for (int64_t k = 0; k < stored; ++k) {
      if constexpr (Digits) {
        const int8_t digit = static_cast<int8_t>(q[k]);
        low[at + k] = digit;
        high[at + k] = static_cast<int8_t>((q[k] - digit) >> 8);
      } else {
        whole[at + k] = static_cast<int16_t>(q[k]);
      }
    }
    total += sum;
  };
  for (; at + 32 <= p.in; at += 32) block(32, 32);
  if (at < p.in_padded) block(p.in - at, p.in_padded - at);
  p.row_sum[row] = total;
}

// Quantise a row for weights of 4, 3 or 2 bits: one signed byte an input, in steps of its group's
// largest magnitude / 127.
template <class X>
inline void quantise_groups(const Product& p, int64_t row) {
  const X* x = static_cast<const X*>(p.x) + row * p.in;
  int8_t* to = reinterpret_cast<int8_t*>(p.prepared + row * p.row_bytes);
  int64_t group = row * (p.in_padded / kGroup), at = 0;
  const int32_t zero = p.format == Format::int4 ? -8 : p.format == Format::int3 ? -7 : -3;
  const auto block = [&](int64_t given) __attribute__((always_inline)) {
    int32_t q[kGroup], sum = 0;
    float inverse;
    const float step = step_of(x + at, given, kLargestByte, inverse);
    for (int64_t k = 0; k < given; ++k) {
      const int32_t rounded = round_to_int(number(x[at + k]) * inverse);
      q[k] = inverse != 0 ? rounded : 0;
    }
    for (int64_t k = given; k < kGroup; ++k) q[k] = 0;
    for (int k = 0; k < kGroup; ++k) {
      to[at + k] = static_cast<int8_t>(q[k]);
      sum += q[k];
    }
    p.group_scale[group] = p.format == Format::int3 ? step / 2 : step;
    p.group_offset[group] = zero * sum;
  };
  for (; at + kGroup <= p.in; at += kGroup, ++group) block(kGroup);
  for (; at < p.in_padded; at += kGroup, ++group) block(p.in > at ? p.in - at : 0);
}

template <class X>
inline void widen_row(const Product& p, int64_t row) {
  const X* x = static_cast<const X*>(p.x) + row * p.in;
  float* to = reinterpret_cast<float*>(p.prepared + row * p.row_bytes);
  for (int64_t k = 0; k < p.in; ++k) to[k] = number(x[k]);
  for (int64_t k = p.in; k < p.in_padded; ++k) to[k] = 0;
}

// bfloat16 activations as they are, for instructions that multiply pairs of them.
inline void copy_row(const Product& p, int64_t row) {
  uint8_t* to = p.prepared + row * p.row_bytes;
  const uint64_t bytes = static_cast<uint64_t>(p.in) * 2;
  __builtin_memcpy(to, static_cast<const uint8_t*>(p.x) + static_cast<uint64_t>(row) * bytes,
                   bytes);
  __builtin_memset(to + bytes, 0, static_cast<uint64_t>(p.row_bytes) - bytes);
}

template <bool Digits, class X>
inline void prepare_row(const Product& p, int64_t row) {
  switch (p.format) {
    case Format::bf16: return p.pairs ? copy_row(p, row) : widen_row<X>(p, row);
    case Format::int8: return quantise_row<Digits, X>(p, row);
    case Format::int4:
    case Format::int2:
    case Format::int3: return quantise_groups<X>(p, row);
  }
}

template <bool Digits>
inline void prepare_rows(const Product& p, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    p.x_type == Type::bf16 ? prepare_row<Digits, uint16_t>(p, row)
                           : prepare_row<Digits, float>(p, row);
  }
}

// Add the bias to 16 sums and store those that are outputs, rounded once.
inline void write(const Product& p, int64_t row, int64_t panel, const float* sums) {
  const int64_t first = panel * kPanel;
  const int64_t count = p.out - first < kPanel ? p.out - first : kPanel;
  float values[kPanel];
  for (int k = 0; k < kPanel; ++k) values[k] = sums[k];
  if (p.bias && p.bias_type == Type::bf16) {
    const uint16_t* bias = static_cast<const uint16_t*>(p.bias) + first;
    for (int64_t k = 0; k < count; ++k) values[k] += from_bf16(bias[k]);
  } else if (p.bias) {
    const float* bias = static_cast<const float*>(p.bias) + first;
    for (int64_t k = 0; k < count; ++k) values[k] += bias[k];
  }
  if (p.y_type == Type::bf16) {
    uint16_t* y = static_cast<uint16_t*>(p.y) + row * p.out + first;
    for (int64_t k = 0; k < count; ++k) y[k] = to_bf16(values[k]);
  } else {
    float* y = static_cast<float*>(p.y) + row * p.out + first;
    for (int64_t k = 0; k < count; ++k) y[k] = values[k];
  }
}

// int8: the exact integer sum of every output, scaled once.
inline void write_int8(const Product& p, int64_t row, int64_t panel, const int64_t* totals) {
  float sums[kPanel];
  const double step = p.row_scale[row];
  for (int k = 0; k < kPanel; ++k) {
    sums[k] =
        static_cast<float>(static_cast<double>(totals[k]) * (step * p.scale[panel * kPanel + k]));
  }
  write(p, row, panel, sums);
}

// Run Block<R, P>::run(p, panel, row) over all rows of all panels: R rows by P panels at a time. As
// many rows as Few go past one panel after the other, so that each weight is read once in one
// sequential stream; more go in blocks of Rows by Panels, while the weights of some panels stay in
// the second-level cache.
template <template <int, int> class Block, int Few, int Rows, int Panels>
struct Each {
  template <int R>
  static void some(const Product& p, int64_t panel, int64_t row, int64_t left) {
    if constexpr (R > 0) {
      left == R ? Block<R, 1>::run(p, panel, row) : some<R - 1>(p, panel, row, left);
    }
  }

  static void run(const Product& p, int64_t first, int64_t last) {
    int64_t row = 0;
    if (p.rows > Few) {
      for (; row + Rows <= p.rows; row += Rows) {
        int64_t panel = first;
        for (; panel + Panels <= last; panel += Panels) Block<Rows, Panels>::run(p, panel, row);
        for (; panel < last; ++panel) Block<Rows, 1>::run(p, panel, row);
      }
    }
    if (row == p.rows) return;
    for (int64_t panel = first; panel < last; ++panel) some<Few>(p, panel, row, p.rows - row);
  }
};

// Of int3: bytes of a panel's lowest bits, and those of the group that begins with input `first`
// of the panel that `w` is in.
inline int64_t low_bytes(const Product& p) { return p.in_padded / kBlock * kLowBytes; }
inline const uint8_t* low_bits(const Product& p, const uint8_t* w, int64_t first) {
  return p.low + (w - p.data) / p.panel_bytes * low_bytes(p) + first / kGroup * (kLowBytes / 2);
}

// The panels of a product, by what an instruction set has for each format.
template <class OfBf16, class OfInt8, class OfInt4, class OfInt2, class OfInt3>
void panels(const Product& p, int64_t first, int64_t last) {
  switch (p.format) {
    case Format::bf16: return OfBf16::run(p, first, last);
    case Format::int8: return OfInt8::run(p, first, last);
    case Format::int4: return OfInt4::run(p, first, last);
    case Format::int2: return OfInt2::run(p, first, last);
    case Format::int3: return OfInt3::run(p, first, last);
  }
}

inline uint64_t read_words(const uint64_t* from, int64_t count) {
  uint64_t sums[32] = {};
  int64_t k = 0;
  for (; k + 32 <= count; k += 32) {
    for (int lane = 0; lane < 32; ++lane) sums[lane] += from[k + lane];
  }
  for (; k < count; ++k) sums[0] += from[k];
  for (int lane = 1; lane < 32; ++lane) sums[0] += sums[lane];
  return sums[0];
}
