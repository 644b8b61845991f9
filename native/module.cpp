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

#include "attention.h"
#include "kernels.h"
#include "pool.h"
#include "product.h"
#include "run.h"
#include "sequence.h"
#include "trunk.h"

namespace nb = nanobind;

namespace griffin {
namespace {

#include "scratch.h"

const void* at(uint64_t address) { return reinterpret_cast<const void*>(static_cast<uintptr_t>(address)); }

Matrix matrix(int format, uint64_t data, uint64_t scale, int64_t outputs, int64_t inputs, int64_t panel_bytes,
              uint64_t bias, int bias_type) {
  return {static_cast<Format>(format), static_cast<const uint8_t*>(at(data)), static_cast<const float*>(at(scale)),
          outputs, inputs, panel_bytes, at(bias), static_cast<Type>(bias_type)};
}

void packed_linear(const Matrix& m, uint64_t x, int x_type, int64_t rows, uint64_t y, int y_type, int threads) {
  nb::gil_scoped_release release;
  const Results results{const_cast<void*>(at(y)), static_cast<Type>(y_type)};
  multiply(&m, &results, 1, at(x), static_cast<Type>(x_type), rows, scratch().get(product_bytes(m, rows)), threads);
}

void look_up_rows(const Matrix& m, uint64_t ids, int64_t count, float scale, int type, uint64_t y) {
  nb::gil_scoped_release release;
  look_up(m, static_cast<const int64_t*>(at(ids)), count, scale, static_cast<Type>(type), const_cast<void*>(at(y)));
}

void pack(uint64_t from, int64_t rows, int64_t inputs, uint64_t to, int threads) {
  nb::gil_scoped_release release;
  pack_pairs(static_cast<const uint16_t*>(at(from)), rows, inputs,
             static_cast<uint32_t*>(const_cast<void*>(at(to))), threads);
}

void* out(uint64_t address) { return const_cast<void*>(at(address)); }
const int64_t* numbers(uint64_t address) { return static_cast<const int64_t*>(at(address)); }

void scan(int type, int64_t rows, int64_t steps, int64_t width, uint64_t x, uint64_t a, uint64_t h0, uint64_t h,
          uint64_t last, uint64_t every, int threads) {
  nb::gil_scoped_release release;
  const Scan s{static_cast<Type>(type), rows, steps, width, at(x), at(a), at(h0), out(h), out(last), out(every)};
  run(s, threads);
}

void scan_gradient(int type, int64_t rows, int64_t steps, int64_t width, uint64_t a, uint64_t dh, uint64_t every,
                   uint64_t h0, uint64_t dlast, uint64_t dx, uint64_t da, uint64_t dh0, int threads) {
  nb::gil_scoped_release release;
  const ScanGradient s{static_cast<Type>(type), rows, steps, width, at(a), at(dh), at(every), at(h0), at(dlast),
                       out(dx), out(da), out(dh0)};
  run(s, threads);
}

void unit(int type, int64_t rows, int64_t steps, int64_t width, int64_t blocks, uint64_t x, uint64_t wi,
          uint64_t bi, uint64_t wr, uint64_t br, uint64_t param, uint64_t position, uint64_t h0, uint64_t h,
          uint64_t last, int threads) {
  nb::gil_scoped_release release;
  const Unit u{static_cast<Type>(type), rows, steps, width, blocks, at(x), at(wi), at(bi), at(wr), at(br),
               at(param), numbers(position), at(h0), out(h), out(last), nullptr, nullptr, nullptr};
  run(u, threads);
}

void unit_of_gates(int type, int64_t rows, int64_t steps, int64_t width, uint64_t x, uint64_t gate_i,
                   uint64_t gate_r, uint64_t param, uint64_t position, uint64_t h0, uint64_t h, uint64_t last,
                   uint64_t every, int threads) {
  nb::gil_scoped_release release;
  const Unit u{static_cast<Type>(type), rows, steps, width, 1, at(x), nullptr, nullptr, nullptr, nullptr,
               at(param), numbers(position), at(h0), out(h), out(last), at(gate_i), at(gate_r), out(every)};
  run(u, threads);
}

void unit_gradient(int type, int64_t rows, int64_t steps, int64_t width, uint64_t x, uint64_t dh,
                   uint64_t gate_i, uint64_t gate_r, uint64_t every, uint64_t param, uint64_t position,
                   uint64_t h0, uint64_t dlast, uint64_t dx, uint64_t dgate_i, uint64_t dgate_r, uint64_t drate,
                   uint64_t dh0, int threads) {
  nb::gil_scoped_release release;
  const UnitGradient u{static_cast<Type>(type), rows, steps, width, at(x), at(dh), at(gate_i), at(gate_r),
                       at(every), at(param), numbers(position), at(h0), at(dlast), out(dx), out(dgate_i),
                       out(dgate_r), out(drate), out(dh0)};
  run(u, threads);
}

void convolution(int type, int64_t rows, int64_t steps, int64_t width, int64_t taps, uint64_t x, uint64_t weight,
                 uint64_t bias, uint64_t position, uint64_t cache, uint64_t y, uint64_t left, int threads) {
  nb::gil_scoped_release release;
  const Convolution v{static_cast<Type>(type), rows, steps, width, taps, at(x), at(weight), at(bias),
                      numbers(position), at(cache), out(y), out(left)};
  run(v, threads);
}

void attention(int type, int64_t rows, int64_t steps, int64_t heads, int64_t kv_heads, int64_t width, int64_t slots,
               uint64_t q, uint64_t k, uint64_t v, uint64_t ring_k, uint64_t ring_v, uint64_t position, uint64_t y,
               int threads) {
  nb::gil_scoped_release release;
  Attention n{};
  n.type = static_cast<Type>(type);
  n.rows = rows;
  n.steps = steps;
  n.heads = heads;
  n.kv_heads = kv_heads;
  n.width = width;
  n.slots = slots;
  n.q = at(q);
  n.k = at(k);
  n.v = at(v);
  n.ring_k = at(ring_k);
  n.ring_v = at(ring_v);
  n.y = out(y);
  attend(n, numbers(position), threads);
}

void norm(int type, int64_t rows, int64_t width, uint64_t x, uint64_t weight, double eps, uint64_t y, int threads) {
  nb::gil_scoped_release release;
  const Norm n{static_cast<Type>(type), rows, width, at(x), nullptr, at(weight), eps, nullptr, out(y)};
  run(n, threads);
}

void gated(int type, int64_t count, uint64_t gate, uint64_t x, uint64_t y, int threads) {
  nb::gil_scoped_release release;
  const Gated g{static_cast<Type>(type), count, at(gate), at(x), out(y)};
  run(g, threads);
}

void rope(int type, int64_t tokens, int64_t heads, int64_t width, int64_t half, uint64_t x, uint64_t cos, uint64_t sin,
          int threads) {
  nb::gil_scoped_release release;
  const Rope r{static_cast<Type>(type), tokens, heads, width, half, out(x), at(cos), at(sin)};
  run(r, threads);
}

void cosines(int type, uint64_t position, int64_t tokens, uint64_t frequency, int64_t half, uint64_t cos, uint64_t sin) {
  nb::gil_scoped_release release;
  rope_table(static_cast<Type>(type), numbers(position), tokens, static_cast<const double*>(at(frequency)), half,
             out(cos), out(sin));
}

void soft_cap(uint64_t x, int64_t count, float cap, int threads) {
  nb::gil_scoped_release release;
  const SoftCap s{count, cap, static_cast<float*>(out(x))};
  run(s, threads);
}

void linear_rows(int type, int64_t rows, int64_t in, int64_t outputs, uint64_t x, uint64_t w, uint64_t bias, uint64_t y,
                 int threads) {
  nb::gil_scoped_release release;
  run(Linear{static_cast<Type>(type), rows, in, outputs, at(x), at(w), at(bias), out(y), nullptr}, threads);
}

// Read tokens through a whole model; Ctrl-C is heard between two layers of a long reading.
void run_trunk(const Trunk& trunk, uint64_t tokens, int64_t rows, int64_t steps, uint64_t before,
               const std::vector<uint64_t>& state, uint64_t hidden, int threads) {
  nb::gil_scoped_release release;
  std::vector<void*> tensors;
  for (const uint64_t address : state) tensors.push_back(out(address));
  trunk.run(numbers(tokens), rows, steps, numbers(before), tensors, out(hidden), threads, [&] {
    if (rows * steps <= 16) return;
    nb::gil_scoped_acquire hold;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  });
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
  nb::class_<Matrix>(m, "Matrix", "A packed matrix and its bias; whoever makes one keeps their memory.")
      .def("__init__",
           [](Matrix* self, int format, uint64_t data, uint64_t scale, int64_t outputs, int64_t inputs,
              int64_t panel_bytes, uint64_t bias, int bias_type) {
             new (self) Matrix(matrix(format, data, scale, outputs, inputs, panel_bytes, bias, bias_type));
           });
  nb::class_<Trunk>(m, "Trunk", "A model's blocks, for reading without gradients.")
      .def("__init__",
           [](Trunk* self, int type, const std::vector<int64_t>& sizes, double eps,
              const std::vector<double>& frequencies, const Matrix& embedding, float scale, uint64_t final_norm) {
             new (self) Trunk(static_cast<Type>(type), sizes, eps, frequencies, embedding, scale, at(final_norm));
           })
      .def("add_recurrent",
           [](Trunk& self, uint64_t norm, const std::vector<Matrix>& matrices, const std::vector<uint64_t>& tensors) {
             std::vector<const void*> pointers;
             for (const uint64_t address : tensors) pointers.push_back(at(address));
             self.add_recurrent(at(norm), matrices, pointers);
           })
      .def("add_attention", [](Trunk& self, uint64_t norm,
                               const std::vector<Matrix>& matrices) { self.add_attention(at(norm), matrices); })
      .def("add_mlp", [](Trunk& self, uint64_t norm,
                         const std::vector<Matrix>& matrices) { self.add_mlp(at(norm), matrices); })
      .def("run", &run_trunk);
  m.def("packed_linear", &packed_linear);
  m.def("look_up", &look_up_rows);
  m.def("pack_pairs", &pack);
  m.def("norm", &norm);
  m.def("gated", &gated);
  m.def("rope", &rope);
  m.def("rope_table", &cosines);
  m.def("soft_cap", &soft_cap);
  m.def("linear", &linear_rows);
  m.def("scan", &scan);
  m.def("scan_gradient", &scan_gradient);
  m.def("unit", &unit);
  m.def("unit_of_gates", &unit_of_gates);
  m.def("unit_gradient", &unit_gradient);
  m.def("convolution", &convolution);
  m.def("attention", &attention);
  m.def("read_seconds", &read_seconds, nb::arg("address"), nb::arg("bytes"), nb::arg("threads"));
}
