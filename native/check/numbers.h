// Random tensors and packed matrices, the same on every machine.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "product.h"
#include "run.h"

namespace griffin {
namespace {

#include "packed/rows.h"

}  // namespace

struct Tensor {
  Type type;
  std::vector<uint8_t> bytes;

  Tensor(Type t, int64_t count)  // of NaN, so that what no kernel writes is found
      : type(t), bytes(static_cast<size_t>(count * size_of(t)), 0xff) {}

  operator void*() { return bytes.data(); }
  int64_t count() const { return static_cast<int64_t>(bytes.size()) / size_of(type); }

  double operator[](int64_t k) const {
    const uint8_t* from = bytes.data() + k * size_of(type);
    if (type == Type::f64) return read<double>(from);
    return type == Type::f32 ? read<float>(from) : from_bf16(read<uint16_t>(from));
  }

  void set(int64_t k, double value) {
    uint8_t* to = bytes.data() + k * size_of(type);
    const float narrow = static_cast<float>(value);
    const uint16_t half = to_bf16(narrow);
    std::memcpy(to, type == Type::f64 ? static_cast<const void*>(&value)
                    : type == Type::f32 ? static_cast<const void*>(&narrow) : &half,
                static_cast<size_t>(size_of(type)));
  }

 private:
  template <class T>
  static T read(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
};

// Random numbers by splitmix64.
class Numbers {
 public:
  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

  Tensor uniform(Type type, int64_t count, double low = -1, double high = 1) {
    Tensor out(type, count);
    for (int64_t k = 0; k < count; ++k) {
      out.set(k, low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53);
    }
    return out;
  }

 private:
  uint64_t state_ = 13;
};

// A packed matrix of random weights and the memory it lies in.
struct Packed {
  Tensor scale{Type::f32, 0}, bias{Type::f32, 0};
  std::vector<uint8_t> data, low;
  Matrix matrix;

  Packed(Numbers& numbers, Format format, int64_t out, int64_t in, double size,
         const Type* bias_type = nullptr) {
    const bool third = format == Format::int3;
    const int bits = format == Format::int4 ? 4 : format == Format::int2 || third ? 2 : 0;
    const int64_t unit = bits ? kBlock : format == Format::int8 ? 4 : 2;
    const int64_t units = (in + unit - 1) / unit, panels = (out + kPanel - 1) / kPanel;
    const int64_t panel = units * (bits ? block_bytes(bits) : 64);
    data.resize(static_cast<size_t>(panels * panel));
    low.resize(static_cast<size_t>(third ? panels * units * kLowBytes : 0));
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(numbers.bits());
    for (uint8_t& byte : low) byte = static_cast<uint8_t>(numbers.bits());
    scale = numbers.uniform(Type::f32, panels * kPanel, 0, size / 128);
    if (format == Format::bf16) {
      data = numbers.uniform(Type::bf16, panels * panel / 2, -size, size).bytes;
    } else if (bits) {
      const int exponent = 15 + static_cast<int>(std::log2(size / 8));
      for (int64_t block = 0; block < panels * units; ++block) {
        for (int k = 128 * bits; k < block_bytes(bits); k += 2) {  // half precision, of any sign
          const uint16_t half = static_cast<uint16_t>((numbers.bits() & 0x83ff) | exponent << 10);
          const int64_t at = block / units * panel + block % units * block_bytes(bits) + k;
          std::memcpy(&data[static_cast<size_t>(at)], &half, 2);
        }
      }
    }
    if (bias_type) bias = numbers.uniform(*bias_type, out);
    matrix = {format, data.data(), reinterpret_cast<const float*>(scale.bytes.data()), low.data(),
              out, in, panel, bias_type ? bias.bytes.data() : nullptr, bias.type};
  }
};

}  // namespace griffin
