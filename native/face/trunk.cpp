// A whole trunk in one call: what it is made of, reading, and going back.
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <numeric>
#include <tuple>
#include <vector>

#include "face.h"
#include "trunk.h"

namespace griffin {
namespace {

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

}  // namespace

// What a trunk is made of. Every field is given by its name, in the order of the struct.
void add_trunk(nb::module_& m) {
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

}  // namespace griffin
