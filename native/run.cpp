#include "run.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "pool.h"

namespace griffin {
namespace {

#include "scratch.h"

// Fewer threads where there is little to do: waking one costs as much as this many operations on a
// value.
int enough(int threads, int64_t values) {
  const int64_t most = values / 4096 + 1;
  return most < threads ? static_cast<int>(most) : threads;
}

const Sequences& kernels() { return *active().sequences; }

// Every thread has a run of channels as long as its share, so that memory is read in long pieces.
template <class Job>
void by_channels(const Job& job, void (*kernel)(const Job&, int64_t, int64_t), int threads) {
  const int64_t pieces = job.rows * ((job.width + kernels().lanes - 1) / kernels().lanes);
  threads = enough(threads, job.rows * job.steps * job.width);
  parallel(threads, pieces, (pieces + threads - 1) / threads,
           [&](int64_t first, int64_t last) { kernel(job, first, last); });
}

template <class Job>
void by_pieces(const Job& job, void (*kernel)(const Job&, int64_t, int64_t), int64_t pieces,
               int64_t grain, int threads) {
  parallel(threads, pieces, grain, [&](int64_t first, int64_t last) { kernel(job, first, last); });
}

}  // namespace

void run(const Scan& s, int threads) { by_channels(s, kernels().scan, threads); }

void run(const ScanGradient& s, int threads) { by_channels(s, kernels().scan_gradient, threads); }

void run(const Unit& u, int threads) {
  if (u.gate_i) return by_channels(u, kernels().unit, threads);
  const int64_t lanes = u.type == Type::f64 ? kernels().lanes / 2 : kernels().lanes;
  const int64_t size = u.width / u.blocks;
  by_pieces(u, kernels().unit, u.rows * u.blocks * ((size + lanes - 1) / lanes), 1,
            enough(threads, u.rows * u.steps * u.width * size / 8));
}

void run(const UnitGradient& u, int threads) { by_channels(u, kernels().unit_gradient, threads); }

void run(const Convolution& v, int threads) {
  by_pieces(v, kernels().convolution, v.rows * v.steps, 64,
            enough(threads, v.rows * v.steps * v.width * v.taps / 4));
}

// The gates' weights, laid out for all threads.
static void lay_out(Recurrence& r, int threads) {
  r.memory = scratch().get(kernels().recurrence_bytes(r));
  by_pieces(r, kernels().recurrence_weights, r.blocks, 1, threads);
}

void run(Recurrence r, int threads) {
  threads = enough(threads, r.rows * r.steps * r.width * r.width / r.blocks / 8);
  lay_out(r, threads);
  by_pieces(r, kernels().recurrence, r.rows * r.blocks, 1, threads);
}

void run(RecurrenceGradient g, int threads) {
  Recurrence& r = g.of;
  threads = enough(threads, r.rows * r.steps * r.width * r.width / r.blocks / 8);
  lay_out(r, threads);
  by_pieces(g, kernels().recurrence_gradient, g.groups * r.blocks, 1, threads);
}

void run(const Norm& n, int threads) {
  by_pieces(n, kernels().norm, n.rows, 4, enough(threads, n.rows * n.width));
}

template <class T>
static void sum_blocks(const NormGradient& n, int64_t blocks) {
  T* sum = static_cast<T*>(n.dweight);
  std::fill(sum, sum + n.width, T(0));
  for (int64_t block = 0; block < blocks; ++block) {
    const T* part = static_cast<const T*>(n.blocks) + block * n.width;
    for (int64_t c = 0; c < n.width; ++c) sum[c] += part[c];
  }
}

void run(const NormGradient& n, int threads) {
  const int64_t blocks = (n.rows + kNormRows - 1) / kNormRows;
  by_pieces(n, kernels().norm_gradient, blocks, 1, enough(threads, n.rows * n.width * 2));
  n.type == Type::f64 ? sum_blocks<double>(n, blocks) : sum_blocks<float>(n, blocks);
}

void run(const Gated& g, int threads) {
  by_pieces(g, kernels().gated, (g.count + kRun - 1) / kRun, 1, enough(threads, g.count * 4));
}

void run(const GatedGradient& g, int threads) {
  by_pieces(g, kernels().gated_gradient, (g.count + kRun - 1) / kRun, 1,
            enough(threads, g.count * 4));
}

void run(const Softmax& s, int threads) {
  by_pieces(s, kernels().softmax, s.rows, 1, enough(threads, s.rows * s.columns));
}

void run(const Rope& r, int threads) {
  by_pieces(r, kernels().rope, r.tokens, 4, enough(threads, r.tokens * r.heads * r.half));
}

void run(const SoftCap& s, int threads) {
  by_pieces(s, kernels().soft_cap, (s.count + kRun - 1) / kRun, 8, enough(threads, s.count));
}

void run(Linear n, int threads) {
  const Sequences& k = kernels();
  threads = enough(threads, n.rows * n.in * n.out / 16);
  if (const int64_t needed = k.linear_bytes(n)) {
    n.memory = scratch().get(needed);
    by_pieces(n, k.linear_prepare, (n.rows + 15) / 16, 4, threads);
  }
  // Many rows: as many weights as stay in a core's cache while all rows go past them, and no thread
  // without work.
  const int64_t pieces = (n.out + k.outputs - 1) / k.outputs;
  const int64_t bytes = k.outputs * n.in * size_of(n.type);
  const int64_t most = std::max<int64_t>(1, pieces / (4 * threads));
  by_pieces(n, k.linear, pieces,
            std::clamp<int64_t>(active().piece / bytes, 1, n.rows > 16 ? most : 1), threads);
}

}  // namespace griffin
