// The Python face of the kernels: addresses and sizes in, nothing out. griffin/ops checks what it passes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "sequence.h"

namespace nb = nanobind;

namespace griffin {
namespace {

// Memory a thread keeps between calls, so that a small product allocates nothing.
class Scratch {
 public:
  ~Scratch() { std::free(held_); }

  uint8_t* get(size_t bytes) {
    if (bytes > size_) {
      std::free(held_);
      size_ = (bytes + 4095) / 4096 * 4096;
      held_ = static_cast<uint8_t*>(std::aligned_alloc(4096, size_));
      if (!held_) {
        size_ = 0;
        throw std::bad_alloc();
      }
    }
    return held_;
  }

 private:
  uint8_t* held_ = nullptr;
  size_t size_ = 0;
};

const void* at(uint64_t address) { return reinterpret_cast<const void*>(static_cast<uintptr_t>(address)); }

int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

void packed_linear(int format, uint64_t data, uint64_t scale, int64_t outputs, int64_t inputs, int64_t panel_bytes,
                   uint64_t x, int x_type, int64_t rows, uint64_t bias, int bias_type, uint64_t y, int y_type,
                   int threads) {
  nb::gil_scoped_release release;
  Product p{};
  p.format = static_cast<Format>(format);
  p.data = static_cast<const uint8_t*>(at(data));
  p.scale = static_cast<const float*>(at(scale));
  p.out = outputs;
  p.in = inputs;
  const bool four = p.format == Format::int4 || p.format == Format::int4_min;
  p.in_padded = round_up(inputs, four ? kBlock4 : p.format == Format::int8 ? 4 : 2);
  p.panel_bytes = panel_bytes;
  p.x = at(x);
  p.x_type = static_cast<Type>(x_type);
  p.bias = at(bias);
  p.bias_type = static_cast<Type>(bias_type);
  p.y = const_cast<void*>(at(y));
  p.y_type = static_cast<Type>(y_type);
  p.rows = rows;
  const Kernels& kernels = active();
  p.pairs = kernels.pairs && p.format == Format::bf16 && p.x_type == Type::bf16;
  p.row_bytes = round_up(p.in_padded * (p.format == Format::bf16 && !p.pairs ? 4 : 2), 64);

  const int64_t groups = four ? p.in_padded / 32 : 0;
  static thread_local Scratch scratch;
  const int64_t prepared = p.row_bytes * rows;
  uint8_t* memory = scratch.get(static_cast<size_t>(prepared + rows * (8 + 4 + 4 * groups)));
  p.prepared = memory;
  p.row_sum = reinterpret_cast<int64_t*>(memory + prepared);
  p.row_scale = reinterpret_cast<float*>(memory + prepared + 8 * rows);
  p.group_sum = groups ? p.row_scale + rows : nullptr;

  parallel(rows < 4 ? 1 : threads, rows, 4,
           [&](int64_t first, int64_t last) { kernels.prepare(p, first, last); });
  // Few rows: pieces small enough to even out the threads. Many: as many panels as stay in a core's cache
  // while all rows go past them.
  const int64_t count = round_up(outputs, kPanel) / kPanel, unit = rows <= 16 ? 1 : kTogether;
  const int64_t bytes = unit * panel_bytes, piece = rows <= 16 ? 128 << 10 : 384 << 10;
  parallel(threads, round_up(count, unit) / unit, bytes < piece ? piece / bytes : 1,
           [&](int64_t first, int64_t last) {
             kernels.panels(p, first * unit, last * unit < count ? last * unit : count);
           });
}

void* out(uint64_t address) { return const_cast<void*>(at(address)); }
const int64_t* numbers(uint64_t address) { return static_cast<const int64_t*>(at(address)); }

// Fewer threads where there is little to do: waking one costs as much as this many operations on a value.
int enough(int threads, int64_t values) {
  const int64_t most = values / 4096 + 1;
  return most < threads ? static_cast<int>(most) : threads;
}

// Runs of channels: as long as the shares of the threads allow, so that memory is read in long pieces.
int64_t share(int64_t pieces, int threads) { return (pieces + threads - 1) / threads; }

void scan(int type, int64_t rows, int64_t steps, int64_t width, uint64_t x, uint64_t a, uint64_t h0, uint64_t h,
          uint64_t last, uint64_t every, int threads) {
  nb::gil_scoped_release release;
  const Scan s{static_cast<Type>(type), rows, steps, width, at(x), at(a), at(h0), out(h), out(last), out(every)};
  const Sequences& kernels = *active().sequences;
  const int64_t pieces = rows * ((width + kernels.lanes - 1) / kernels.lanes);
  threads = enough(threads, rows * steps * width);
  parallel(threads, pieces, share(pieces, threads), [&](int64_t first, int64_t end) { kernels.scan(s, first, end); });
}

void scan_gradient(int type, int64_t rows, int64_t steps, int64_t width, uint64_t a, uint64_t dh, uint64_t every,
                   uint64_t h0, uint64_t dlast, uint64_t dx, uint64_t da, uint64_t dh0, int threads) {
  nb::gil_scoped_release release;
  const ScanGradient s{static_cast<Type>(type), rows, steps, width, at(a), at(dh), at(every), at(h0), at(dlast),
                       out(dx), out(da), out(dh0)};
  const Sequences& kernels = *active().sequences;
  const int64_t pieces = rows * ((width + kernels.lanes - 1) / kernels.lanes);
  threads = enough(threads, rows * steps * width);
  parallel(threads, pieces, share(pieces, threads),
           [&](int64_t first, int64_t end) { kernels.scan_gradient(s, first, end); });
}

void unit(int type, int64_t rows, int64_t steps, int64_t width, int64_t blocks, uint64_t x, uint64_t wi,
          uint64_t bi, uint64_t wr, uint64_t br, uint64_t param, uint64_t position, uint64_t h0, uint64_t h,
          uint64_t last, int threads) {
  nb::gil_scoped_release release;
  const Unit u{static_cast<Type>(type), rows, steps, width, blocks, at(x), at(wi), at(bi), at(wr), at(br),
               at(param), numbers(position), at(h0), out(h), out(last), nullptr, nullptr, nullptr};
  const Sequences& kernels = *active().sequences;
  const int64_t lanes = u.type == Type::f64 ? kernels.lanes / 2 : kernels.lanes;
  const int64_t pieces = rows * blocks * ((width / blocks + lanes - 1) / lanes);
  parallel(enough(threads, rows * steps * width * (width / blocks) / 8), pieces, 1,
           [&](int64_t first, int64_t end) { kernels.unit(u, first, end); });
}

void unit_of_gates(int type, int64_t rows, int64_t steps, int64_t width, uint64_t x, uint64_t gate_i,
                   uint64_t gate_r, uint64_t param, uint64_t position, uint64_t h0, uint64_t h, uint64_t last,
                   uint64_t every, int threads) {
  nb::gil_scoped_release release;
  const Unit u{static_cast<Type>(type), rows, steps, width, 1, at(x), nullptr, nullptr, nullptr, nullptr,
               at(param), numbers(position), at(h0), out(h), out(last), at(gate_i), at(gate_r), out(every)};
  const Sequences& kernels = *active().sequences;
  const int64_t pieces = rows * ((width + kernels.lanes - 1) / kernels.lanes);
  threads = enough(threads, rows * steps * width);
  parallel(threads, pieces, share(pieces, threads), [&](int64_t first, int64_t end) { kernels.unit(u, first, end); });
}

void unit_gradient(int type, int64_t rows, int64_t steps, int64_t width, uint64_t x, uint64_t dh,
                   uint64_t gate_i, uint64_t gate_r, uint64_t every, uint64_t param, uint64_t position,
                   uint64_t h0, uint64_t dlast, uint64_t dx, uint64_t dgate_i, uint64_t dgate_r, uint64_t drate,
                   uint64_t dh0, int threads) {
  nb::gil_scoped_release release;
  const UnitGradient u{static_cast<Type>(type), rows, steps, width, at(x), at(dh), at(gate_i), at(gate_r),
                       at(every), at(param), numbers(position), at(h0), at(dlast), out(dx), out(dgate_i),
                       out(dgate_r), out(drate), out(dh0)};
  const Sequences& kernels = *active().sequences;
  const int64_t pieces = rows * ((width + kernels.lanes - 1) / kernels.lanes);
  threads = enough(threads, rows * steps * width);
  parallel(threads, pieces, share(pieces, threads),
           [&](int64_t first, int64_t end) { kernels.unit_gradient(u, first, end); });
}

void convolution(int type, int64_t rows, int64_t steps, int64_t width, int64_t taps, uint64_t x, uint64_t weight,
                 uint64_t bias, uint64_t position, uint64_t cache, uint64_t y, uint64_t left, int threads) {
  nb::gil_scoped_release release;
  const Convolution v{static_cast<Type>(type), rows, steps, width, taps, at(x), at(weight), at(bias),
                      numbers(position), at(cache), out(y), out(left)};
  const Sequences& kernels = *active().sequences;
  parallel(enough(threads, rows * steps * width * taps / 4), rows * steps, 64,
           [&](int64_t first, int64_t end) { kernels.convolution(v, first, end); });
}

void attention(int type, int64_t rows, int64_t heads, int64_t kv_heads, int64_t width, int64_t slots, uint64_t q,
               uint64_t k, uint64_t v, uint64_t ring_k, uint64_t ring_v, uint64_t held, uint64_t position,
               uint64_t segment, uint64_t pad, uint64_t y, int threads) {
  nb::gil_scoped_release release;
  static thread_local Scratch scratch;
  const int64_t pieces = rows * kv_heads * ((slots + kSlots - 1) / kSlots + 1);
  const int64_t bytes = pieces * (heads / kv_heads) * (width + 2) * (static_cast<Type>(type) == Type::f64 ? 8 : 4);
  const Attention n{static_cast<Type>(type), rows, heads, kv_heads, width, slots, at(q), at(k), at(v),
                    at(ring_k), at(ring_v), numbers(held), numbers(position), numbers(segment),
                    static_cast<const bool*>(at(pad)), out(y), scratch.get(static_cast<size_t>(bytes))};
  const Sequences& kernels = *active().sequences;
  threads = enough(threads, rows * heads * slots * width / 8);
  parallel(threads, pieces, 1, [&](int64_t first, int64_t end) { kernels.attention(n, first, end); });
  parallel(enough(threads, rows * heads * width), rows * kv_heads, 1,
           [&](int64_t first, int64_t end) { kernels.attention_end(n, first, end); });
}

// Seconds to read `bytes` at `address` once, from first to last, each thread its own share.
double read_seconds(uint64_t address, int64_t bytes, int threads) {
  nb::gil_scoped_release release;
  const auto* words = static_cast<const uint64_t*>(at(address));
  const Kernels& kernels = active();
  constexpr int64_t kPiece = 1 << 17;  // words: 1 MiB
  const int64_t count = bytes / 8;
  std::atomic<uint64_t> total{0};
  const auto begin = std::chrono::steady_clock::now();
  parallel(threads, (count + kPiece - 1) / kPiece, 1, [&](int64_t first, int64_t last) {
    const int64_t end = last * kPiece < count ? last * kPiece : count;
    total += kernels.read(words + first * kPiece, end - first * kPiece);
  });
  const auto end = std::chrono::steady_clock::now();
  // Told to the caller in a way that no compiler can leave the reading out.
  return std::chrono::duration<double>(end - begin).count() + (total.load() == 1 ? 1e-12 : 0);
}

std::vector<std::string> names() {
  const Kernels* const* tables;
  const int count = available(&tables);
  std::vector<std::string> out;
  for (int k = 0; k < count; ++k) out.emplace_back(tables[k]->name);
  return out;
}

void use(const std::string& name) {
  if (!force(name.c_str())) throw std::invalid_argument("this machine has no kernels named " + name);
}

}  // namespace
}  // namespace griffin

NB_MODULE(_native, m) {
  using namespace griffin;
  m.doc() = "CPU kernels of griffin; called through griffin.ops.";
  m.def("instruction_sets", &names, "Return the instruction sets this machine can run, the fastest first.");
  m.def("instruction_set", [] { return std::string(active().name); }, "Return the instruction set in use.");
  m.def("use_instruction_set", &use, nb::arg("name"), "Run the kernels of another instruction set.");
  m.attr("largest_gate") = kLargestGate;
  m.attr("most_taps") = kMostTaps;
  m.attr("most_queries") = kMostQueries;
  m.attr("largest_head") = kLargestHead;
  m.def("packed_linear", &packed_linear);
  m.def("scan", &scan);
  m.def("scan_gradient", &scan_gradient);
  m.def("unit", &unit);
  m.def("unit_of_gates", &unit_of_gates);
  m.def("unit_gradient", &unit_gradient);
  m.def("convolution", &convolution);
  m.def("attention", &attention);
  m.def("read_seconds", &read_seconds, nb::arg("address"), nb::arg("bytes"), nb::arg("threads"));
}
