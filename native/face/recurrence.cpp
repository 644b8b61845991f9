// The scan, the recurrent unit and the convolution before it, forward and back.
#include "face.h"
#include "run.h"
#include "sequence.h"

namespace griffin {
namespace {

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

}  // namespace

void add_recurrence(nb::module_& m) {
  m.def("scan", &scan);
  m.def("scan_gradient", &scan_gradient);
  m.def("unit", &unit);
  m.def("unit_of_gates", &unit_of_gates);
  m.def("unit_gradient", &unit_gradient);
  m.def("convolution", &convolution);
  m.def("recurrence", &recurrence);
  m.def("recurrence_gradient", &recurrence_gradient);
}

}  // namespace griffin
