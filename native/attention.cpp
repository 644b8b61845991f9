#include "attention.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "pool.h"
#include "run.h"

namespace griffin {
namespace {

#include "scratch.h"

// Rows of queries that pass a block of keys together: as many as keep their scores in the
// second-level cache.
constexpr int64_t kQueries = 60;

// What a pad reads: its own value, for every head; it is never used.
void read_itself(const Attention& n, int64_t row, int64_t step) {
  const int64_t bytes = size_of(n.type) * n.width;
  const int64_t group = n.heads / n.kv_heads;
  const int64_t token = row * n.steps + step;
  for (int64_t head = 0; head < n.heads; ++head) {
    std::memcpy(static_cast<uint8_t*>(n.y) + (token * n.heads + head) * bytes,
                static_cast<const uint8_t*>(n.v) + (token * n.kv_heads + head / group) * bytes,
                static_cast<size_t>(bytes));
  }
}

}  // namespace

void check_position(int64_t position, int64_t steps) {
  if (position < 0 || position > kMostPositions - steps) {
    throw std::invalid_argument("position " + std::to_string(position) +
                                " is outside 0 to 2^53, with the tokens that follow it");
  }
}

void attend(Attention n, const int64_t* position, int threads) {
  const int64_t group = n.heads / n.kv_heads;
  n.together = kQueries / group > 1 ? kQueries / group : 1;
  n.blocks = n.groups = 0;
  std::vector<Segment> segments;
  for (int64_t row = 0; row < n.rows; ++row) {
    const int64_t* at = position + row * n.steps;
    int64_t step = 0;
    for (; step < n.steps && at[step] < 0; ++step) read_itself(n, row, step);
    while (step < n.steps) {
      int64_t end = step + 1;
      check_position(at[step], n.steps);
      if (at[step] > 0 && !n.ring_k) {
        throw std::invalid_argument("a document goes on, and there is no ring of its keys");
      }
      while (end < n.steps && at[end] != 0) {
        if (at[end] != at[end - 1] + 1) {
          throw std::invalid_argument("position " + std::to_string(at[end]) + " follows " +
                                      std::to_string(at[end - 1]) + " within a document");
        }
        ++end;
      }
      Segment s{};
      s.row = row;
      s.step = step;
      s.count = end - step;
      s.position = at[step];
      s.oldest = s.position > n.slots ? s.position - n.slots : 0;
      s.blocks = (s.position + s.count - 1) / kKeys - s.oldest / kKeys + 1;
      s.blocks_before = n.blocks;
      s.groups = (s.count + n.together - 1) / n.together;
      s.groups_before = n.groups;
      n.blocks += s.blocks;
      n.groups += s.groups;
      segments.push_back(s);
      step = end;
    }
  }
  if (segments.empty()) return;
  n.segments = segments.data();
  n.segment_count = static_cast<int64_t>(segments.size());
  const Sequences& kernels = *active().sequences;
  n.memory = scratch().get(kernels.attention_bytes(n));

  // Fewer threads where there is little to do.
  const int64_t seen = n.slots < n.blocks * kKeys ? n.slots : n.blocks * kKeys;
  const int64_t work = n.rows * n.steps * n.heads * seen * n.width / 32768 + 1;
  threads = work < threads ? static_cast<int>(work) : threads;
  const auto phase = [&](int64_t pieces, void (*run)(const Attention&, int64_t, int64_t)) {
    parallel(threads, n.kv_heads * pieces, 1,
             [&](int64_t first, int64_t last) { run(n, first, last); });
  };
  if (n.steps == 1) {
    phase(n.blocks, kernels.attention_scores);
    phase(n.blocks, kernels.attention_values);
    phase(n.segment_count * group, kernels.attention_sums);
  } else {
    phase(n.blocks, kernels.attention_layout);
    phase(n.groups, kernels.attention_groups);
  }
}

}  // namespace griffin
