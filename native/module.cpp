// The Python face of the kernels: addresses and sizes in, nothing out. griffin/ops/kernels.py looks
// at the tensors before it passes their addresses; sizes that a kernel has no room for, ids and
// positions are looked at here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <numeric>
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

// What Python holds as a number, as a pointer to whatever a kernel takes.
struct Address {
  uint64_t value;

  template <class T>
  operator T*() const {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(value));
  }
};

}  // namespace griffin

namespace nanobind::detail {

// Reads a T from a Python number.
template <class T, class Number>
struct from_number {
  NB_TYPE_CASTER(T, const_name("int"))

  bool from_python(handle from, uint8_t flags, cleanup_list* list) noexcept {
    make_caster<Number> number;
    if (!number.from_python(from, flags, list)) return false;
    value = T{number.value};
    return true;
  }
};

template <>
struct type_caster<griffin::Address> : from_number<griffin::Address, uint64_t> {};
template <>
struct type_caster<griffin::Type> : from_number<griffin::Type, int> {};
template <>
struct type_caster<griffin::Format> : from_number<griffin::Format, int> {};

}  // namespace nanobind::detail

namespace griffin {
namespace {

#include "scratch.h"

// Of this file's functions and what they take; INTERFACE in griffin/ops/native.py is the same
// number. Both go up by one where a function takes something else.
constexpr int kInterface = 3;

// A ValueError in Python.
void need(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

void need_sequence(int64_t steps) { need(steps >= 1, "a sequence has at least one step"); }

void packed_linear(Type type, int64_t rows, int64_t inputs, int64_t outputs, Address x, Address y,
                   const Matrix& m, Type y_type, int threads) {
  need(type != Type::f64 && y_type != Type::f64, "packed weights have no product in float64");
  need(m.in == inputs && m.out == outputs, "the packed matrix is of another size");
  nb::gil_scoped_release release;
  const Results results{y, y_type};
  uint8_t* memory = scratch().get(product_bytes(m, rows));
  multiply(&m, &results, 1, x, type, rows, memory, threads);
}

void look_up_rows(Type type, int64_t count, int64_t inputs, Address ids, Address y,
                  const Matrix& m, float scale, int) {
  need(type != Type::f64, "packed weights are not looked up in float64");
  need(m.in == inputs, "the packed matrix is of another size");
  nb::gil_scoped_release release;
  check_ids(m, ids, count);
  look_up(m, ids, count, scale, type, y);
}

void pack(Type type, int64_t rows, int64_t inputs, Address from, Address to, int threads) {
  need(type == Type::bf16, "pairs are of bfloat16");
  nb::gil_scoped_release release;
  pack_pairs(from, rows, inputs, to, threads);
}

void scan(Type type, int64_t rows, int64_t steps, int64_t width, Address x, Address a, Address h0,
          Address h, Address last, Address every, int threads) {
  need_sequence(steps);
  nb::gil_scoped_release release;
  run(Scan{type, rows, steps, width, x, a, h0, h, last, every}, threads);
}

void scan_gradient(Type type, int64_t rows, int64_t steps, int64_t width, Address a, Address dh,
                   Address every, Address h0, Address dlast, Address dx, Address da, Address dh0,
                   int threads) {
  need_sequence(steps);
  nb::gil_scoped_release release;
  run(ScanGradient{type, rows, steps, width, a, dh, every, h0, dlast, dx, da, dh0}, threads);
}

void unit(Type type, int64_t rows, int64_t steps, int64_t width, int64_t blocks, Address x,
          Address wi, Address bi, Address wr, Address br, Address param, Address position,
          Address h0, Address h, Address last, int threads) {
  need_sequence(steps);
  need(blocks >= 1 && width % blocks == 0 && width / blocks <= kLargestGate,
       "gates have blocks of at most 4,096 inputs, all alike");
  nb::gil_scoped_release release;
  const Unit u{type,  rows,     steps, width, blocks, x,       wi,      bi,     wr, br,
               param, position, h0,    h,     last,   nullptr, nullptr, nullptr};
  run(u, threads);
}

void unit_of_gates(Type type, int64_t rows, int64_t steps, int64_t width, Address x,
                   Address gate_i, Address gate_r, Address param, Address position, Address h0,
                   Address h, Address last, Address every, int threads) {
  need_sequence(steps);
  nb::gil_scoped_release release;
  const Unit u{type,  rows,     steps, width, 1,    x,      nullptr, nullptr, nullptr, nullptr,
               param, position, h0,    h,     last, gate_i, gate_r,  every};
  run(u, threads);
}

void unit_gradient(Type type, int64_t rows, int64_t steps, int64_t width, Address x, Address dh,
                   Address gate_i, Address gate_r, Address every, Address param, Address position,
                   Address h0, Address dlast, Address dx, Address dgate_i, Address dgate_r,
                   Address drate, Address dh0, int threads) {
  need_sequence(steps);
  nb::gil_scoped_release release;
  const UnitGradient u{type,     rows, steps, width, x,       dh,      gate_i, gate_r, every, param,
                       position, h0,   dlast, dx,    dgate_i, dgate_r, drate,  dh0};
  run(u, threads);
}

void convolution(Type type, int64_t rows, int64_t steps, int64_t width, int64_t taps, Address x,
                 Address weight, Address bias, Address position, Address cache, Address y,
                 Address left, int threads) {
  need_sequence(steps);
  need(taps >= 1 && taps <= kMostTaps, "a convolution has 1 to 16 taps");
  nb::gil_scoped_release release;
  run(Convolution{type, rows, steps, width, taps, x, weight, bias, position, cache, y, left},
      threads);
}

void need_recurrence(const Recurrence& u) {
  need_sequence(u.steps);
  need(u.taps >= 1 && u.taps <= kMostTaps, "a convolution has 1 to 16 taps");
  need(u.blocks >= 1 && u.width % u.blocks == 0 && u.width / u.blocks <= kLargestGate,
       "gates have blocks of at most 4,096 inputs, all alike");
}

void recurrence(Type type, int64_t rows, int64_t steps, int64_t width, int64_t blocks, int64_t taps,
                Address x, Address weight, Address bias, Address wi, Address bi, Address wr,
                Address br, Address param, Address position, Address cache, Address h0, Address h,
                Address left, Address last, Address decay, Address kept, int threads) {
  const Recurrence u{type, rows, steps, width, blocks, taps,  x,  weight, bias, wi,    bi,   wr,
                     br,   param, position, cache, h0, h, left, last, decay, kept, nullptr};
  need_recurrence(u);
  nb::gil_scoped_release release;
  run(u, threads);
}

void recurrence_gradient(Type type, int64_t rows, int64_t steps, int64_t width, int64_t blocks,
                         int64_t taps, int64_t groups, Address x, Address weight, Address bias,
                         Address wi, Address bi, Address wr, Address br, Address param,
                         Address position, Address cache, Address h0, Address kept, Address dh,
                         Address dleft, Address dlast, Address ddecay, Address dx, Address dcache,
                         Address dh0, Address dweights, int threads) {
  const Recurrence u{type,  rows,     steps, width, blocks,  taps,    x,       weight,
                     bias,  wi,       bi,    wr,    br,      param,   position, cache,
                     h0,    nullptr,  nullptr, nullptr, nullptr, kept, nullptr};
  need_recurrence(u);
  need(groups >= 0 && groups <= rows, "there are at most as many groups as rows");
  nb::gil_scoped_release release;
  run(RecurrenceGradient{type, u, groups, dh, dleft, dlast, ddecay, dx, dcache, dh0, dweights},
      threads);
}

// What both kernels of attention begin with.
template <class Job>
Job attention_of(Type type, int64_t rows, int64_t steps, int64_t heads, int64_t kv_heads,
                 int64_t width, int64_t slots, Address q, Address k, Address v, Address ring_k,
                 Address ring_v) {
  need_sequence(steps);
  need(kv_heads >= 1 && heads >= 1 && heads % kv_heads == 0 && heads / kv_heads <= kMostQueries &&
           width >= 1 && width <= kLargestHead && slots >= 1,
       "attention has at most 64 queries a key head, heads of at most 1,024, and a window");
  Job n{};
  n.type = type;
  n.rows = rows;
  n.steps = steps;
  n.heads = heads;
  n.kv_heads = kv_heads;
  n.width = width;
  n.slots = slots;
  n.q = q;
  n.k = k;
  n.v = v;
  n.ring_k = ring_k;
  n.ring_v = ring_v;
  return n;
}

void attention_for_gradient(Type type, int64_t rows, int64_t steps, int64_t heads,
                            int64_t kv_heads, int64_t width, int64_t slots, Address q, Address k,
                            Address v, Address ring_k, Address ring_v, Address position, Address y,
                            Address lse, int threads) {
  auto n = attention_of<Attention>(type, rows, steps, heads, kv_heads, width, slots, q, k, v,
                                   ring_k, ring_v);
  n.y = y;
  n.lse = lse;
  nb::gil_scoped_release release;
  attend(n, position, threads);
}

void attention(Type type, int64_t rows, int64_t steps, int64_t heads, int64_t kv_heads,
               int64_t width, int64_t slots, Address q, Address k, Address v, Address ring_k,
               Address ring_v, Address position, Address y, int threads) {
  attention_for_gradient(type, rows, steps, heads, kv_heads, width, slots, q, k, v, ring_k, ring_v,
                         position, y, Address{0}, threads);
}

void attention_gradient(Type type, int64_t rows, int64_t steps, int64_t heads, int64_t kv_heads,
                        int64_t width, int64_t slots, Address q, Address k, Address v,
                        Address ring_k, Address ring_v, Address position, Address y, Address lse,
                        Address dy, Address dq, Address dk, Address dv, Address dring_k,
                        Address dring_v, int threads) {
  auto n = attention_of<AttentionGradient>(type, rows, steps, heads, kv_heads, width, slots, q, k,
                                           v, ring_k, ring_v);
  n.y = y;
  n.lse = lse;
  n.dy = dy;
  n.dq = dq;
  n.dk = dk;
  n.dv = dv;
  n.dring_k = dring_k;
  n.dring_v = dring_v;
  nb::gil_scoped_release release;
  attend_back(n, position, threads);
}

void norm(Type type, int64_t rows, int64_t width, Address x, Address weight, Address y, double eps,
          int threads) {
  nb::gil_scoped_release release;
  run(Norm{type, rows, width, x, nullptr, weight, eps, nullptr, y, false, false}, threads);
}

void add_norm(Type type, int64_t rows, int64_t width, Address x, Address add, Address half_add,
              Address weight, Address sum, Address y, Address half_y, double eps, int threads) {
  need((!half_add.value && !half_y.value) || type == Type::f32, "bfloat16 stands beside float32");
  need((y.value || half_y.value) && (!(add.value || half_add.value) == !sum.value),
       "a norm has a result, and a sum where something is added");
  nb::gil_scoped_release release;
  const Norm n{type,         rows, width, x, half_add.value ? half_add : add, weight, eps, sum,
               half_y.value ? half_y : y, half_add.value != 0, half_y.value != 0};
  run(n, threads);
}

void norm_gradient(Type type, int64_t rows, int64_t width, Address x, Address weight, Address dy,
                   Address half_dy, Address dsum, Address dx, Address half_dx, Address blocks,
                   Address dweight, double eps, int threads) {
  need((!half_dy.value && !half_dx.value) || type == Type::f32, "bfloat16 stands beside float32");
  need(dy.value || half_dy.value, "a gradient comes back through the norm");
  nb::gil_scoped_release release;
  const NormGradient n{type, rows, width, x, weight, half_dy.value ? half_dy : dy, dsum, eps, dx,
                       half_dx, blocks, dweight, half_dy.value != 0};
  run(n, threads);
}

void gated(Type type, int64_t count, Address gate, Address x, Address y, int threads) {
  nb::gil_scoped_release release;
  run(Gated{type, count, gate, x, y}, threads);
}

void gated_gradient(Type type, int64_t count, Address gate, Address x, Address dy, Address dgate,
                    Address dx, Address y, int threads) {
  nb::gil_scoped_release release;
  run(GatedGradient{type, count, gate, x, dy, dgate, dx, y}, threads);
}

void softmax(Type type, int64_t rows, int64_t columns, Address logits, Address target,
             Address total, Address right, bool sums, float cap, float factor, int threads) {
  need(type == Type::f32, "logits are float32");
  nb::gil_scoped_release release;
  run(Softmax{rows, columns, sums, logits, target, total, right, cap, factor}, threads);
}

void rope(Type type, int64_t tokens, int64_t heads, int64_t width, int64_t half, Address x,
          Address cos, Address sin, int threads) {
  need(half >= 0 && 2 * half <= width, "a head is narrower than what is to be rotated");
  nb::gil_scoped_release release;
  run(Rope{type, tokens, heads, width, half, x, cos, sin}, threads);
}

void cosines(Type type, int64_t tokens, int64_t half, Address position, Address frequency,
             Address cos, Address sin, int) {
  need(type != Type::bf16, "cosines are float32 or wider");
  nb::gil_scoped_release release;
  rope_table(type, position, tokens, frequency, half, cos, sin);
}

void soft_cap(Type type, int64_t count, Address x, float cap, int threads) {
  need(type == Type::f32, "logits are float32");
  nb::gil_scoped_release release;
  run(SoftCap{count, cap, x}, threads);
}

void linear_rows(Type type, int64_t rows, int64_t in, int64_t outputs, Address x, Address w,
                 Address bias, Address y, int threads) {
  need(type != Type::f64 && in >= 1, "a product has at least one input, and none is in float64");
  nb::gil_scoped_release release;
  run(Linear{type, rows, in, outputs, x, w, bias, y, nullptr}, threads);
}

std::vector<void*> at(const std::vector<uint64_t>& addresses) {
  std::vector<void*> tensors;
  for (const uint64_t address : addresses) tensors.push_back(Address{address});
  return tensors;
}

// Read tokens through a whole model; Ctrl-C is heard between two layers of a long reading.
void run_trunk(const Trunk& trunk, Address tokens, const std::vector<int64_t>& lengths,
               Address before, const std::vector<uint64_t>& state,
               const std::vector<uint64_t>& trail, Address hidden,
               const std::vector<int64_t>& chosen, int threads) {
  nb::gil_scoped_release release;
  const int64_t count = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  trunk.run(tokens, lengths, before, at(state), at(trail), hidden, chosen, threads, [&] {
    if (count <= 16) return;
    nb::gil_scoped_acquire hold;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  });
}

// Seconds to read `bytes` at `address` once, from first to last, each thread its own share.
double read_seconds(Address address, int64_t bytes, int threads) {
  nb::gil_scoped_release release;
  const uint64_t* words = address;
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
  // The sum counts for the result, so that no compiler can leave the reading out.
  return std::chrono::duration<double>(end - begin).count() + (total.load() == 1 ? 1e-12 : 0);
}

std::vector<std::string> names(int (*of)(const Kernels* const**)) {
  const Kernels* const* tables;
  const int count = of(&tables);
  std::vector<std::string> out;
  for (int k = 0; k < count; ++k) out.emplace_back(tables[k]->name);
  return out;
}

std::vector<std::string> names_of_machine() {
  const char* const* names;
  const int count = of_machine(&names);
  return {names, names + count};
}

void use(const std::string& name) {
  if (!force(name.c_str())) {
    throw std::invalid_argument("this machine has no kernels named " + name);
  }
}

// What a trunk is made of. Every field is given by its name, in the order of the struct.
void bind_trunk(nb::module_& m) {
  using nb::arg;
  nb::class_<Shape>(m, "Shape", "A model's sizes.")
      .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                    int64_t>(),
           nb::kw_only(), arg("width"), arg("lru_width"), arg("mlp_width"), arg("heads"),
           arg("kv_heads"), arg("head_width"), arg("slots"), arg("conv_width"),
           arg("gate_blocks"));
  nb::class_<RecurrentWeights>(m, "RecurrentWeights", "Of a recurrent block and its norm.")
      .def(nb::init<Address, Matrix, Matrix, Matrix, Address, Address, Address, Address, Address,
                    Address, Address>(),
           nb::kw_only(), arg("norm"), arg("linear_x"), arg("linear_y"), arg("linear_out"),
           arg("conv_weight"), arg("conv_bias"), arg("input_gate_weight"), arg("input_gate_bias"),
           arg("recurrent_gate_weight"), arg("recurrent_gate_bias"), arg("recurrent_param"));
  nb::class_<AttentionWeights>(m, "AttentionWeights", "Of an attention block and its norm.")
      .def(nb::init<Address, Matrix, Matrix, Matrix, Matrix>(), nb::kw_only(), arg("norm"),
           arg("q_proj"), arg("k_proj"), arg("v_proj"), arg("o_proj"));
  nb::class_<MlpWeights>(m, "MlpWeights", "Of an MLP and its norm.")
      .def(nb::init<Address, Matrix, Matrix, Matrix>(), nb::kw_only(), arg("norm"),
           arg("gate_proj"), arg("up_proj"), arg("down_proj"));
  using Frequencies = std::vector<double>;
  nb::class_<Trunk>(m, "Trunk", "A model's blocks, for reading without gradients.")
      .def(nb::init<Type, const Shape&, double, const Frequencies&, const Matrix&, float,
                    Address>(),
           nb::kw_only(), arg("type"), arg("shape"), arg("eps"), arg("frequencies"),
           arg("embedding"), arg("scale"), arg("final_norm"))
      .def("add", nb::overload_cast<const RecurrentWeights&, const MlpWeights&>(&Trunk::add))
      .def("add", nb::overload_cast<const AttentionWeights&, const MlpWeights&>(&Trunk::add))
      .def("adapt",
           [](Trunk& trunk, int64_t number,
              const std::vector<std::tuple<uint64_t, uint64_t, int64_t, float>>& added) {
             std::vector<LowRank> low_ranks;
             for (const auto& [a, b, rank, scale] : added) {
               low_ranks.push_back({Address{a}, Address{b}, rank, scale});
             }
             trunk.adapt(number, low_ranks);
           })
      .def("run",
           [](const Trunk& trunk, Address tokens, int64_t rows, int64_t steps, Address before,
              const std::vector<uint64_t>& state, Address hidden,
              const std::vector<int64_t>& chosen, int threads) {
             const std::vector<int64_t> lengths(static_cast<size_t>(rows), steps);
             run_trunk(trunk, tokens, lengths, before, state, {}, hidden, chosen, threads);
           })
      .def("run_ahead", &run_trunk)
      .def("go_back", [](const Trunk& trunk, const std::vector<uint64_t>& state,
                         const std::vector<uint64_t>& trail, int64_t before, int64_t length,
                         int64_t read) {
        trunk.go_back(at(state), at(trail), before, length, read);
      });
}

}  // namespace
}  // namespace griffin

NB_MODULE(_native, m) {
  using namespace griffin;
  m.doc() = "CPU kernels of griffin; called through griffin.ops.";
  m.def("instruction_sets", [] { return names(available); },
        "Return the compiled instruction sets this machine can run, the fastest first.");
  m.def("compiled", [] { return names(compiled); }, "Return the instruction sets in this build.");
  m.def("of_machine", &names_of_machine,
        "Return the instruction sets of this machine that there are kernels for, compiled or not.");
  m.def("instruction_set", [] { return std::string(active().name); },
        "Return the instruction set in use.");
  m.def("use_instruction_set", &use, nb::arg("name"),
        "Run the kernels of another instruction set.");
  m.attr("interface") = kInterface;
  m.attr("largest_gate") = kLargestGate;
  m.attr("most_taps") = kMostTaps;
  m.attr("kept_steps") = kKept;
  m.attr("most_queries") = kMostQueries;
  m.attr("largest_head") = kLargestHead;
  nb::class_<Matrix>(m, "Matrix",
                     "A packed matrix and its bias; whoever makes one keeps their memory.")
      .def(nb::init<Format, Address, Address, int64_t, int64_t, int64_t, Address, Type>(),
           nb::arg("format"), nb::arg("data"), nb::arg("scale"), nb::arg("out"), nb::arg("inputs"),
           nb::arg("panel_bytes"), nb::arg("bias"), nb::arg("bias_type"));
  bind_trunk(m);
  m.def("packed_linear", &packed_linear);
  m.def("look_up", &look_up_rows);
  m.def("pack_pairs", &pack);
  m.def("norm", &norm);
  m.def("add_norm", &add_norm);
  m.def("norm_gradient", &norm_gradient);
  m.def("gated", &gated);
  m.def("gated_gradient", &gated_gradient);
  m.def("softmax", &softmax);
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
  m.def("recurrence", &recurrence);
  m.def("recurrence_gradient", &recurrence_gradient);
  m.def("attention", &attention);
  m.def("attention_for_gradient", &attention_for_gradient);
  m.def("attention_gradient", &attention_gradient);
  m.def("read_seconds", &read_seconds, nb::arg("address"), nb::arg("bytes"), nb::arg("threads"));
}
