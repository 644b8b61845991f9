// A few threads that share out pieces of work: spinning for a moment between two jobs, asleep after
// that.
#pragma once

#include <cstdint>

namespace griffin {

// What one thread does to the pieces [first, last).
using Task = void (*)(const void* job, int64_t first, int64_t last);

// Run `task` over the pieces 0..pieces-1 with `threads` threads, the caller being one of them;
// return when all are done. Each thread starts on a contiguous share and takes `grain` pieces at a
// time; one that is done takes from the end of another's share, so a thread that lost its core
// holds up one grain and no more. One job runs at a time: a second caller waits.
void parallel(int threads, int64_t pieces, int64_t grain, Task task, const void* job);

template <class Job>
void parallel(int threads, int64_t pieces, int64_t grain, const Job& job) {
  const Task task = [](const void* self, int64_t first, int64_t last) {
    (*static_cast<const Job*>(self))(first, last);
  };
  parallel(threads, pieces, grain, task, &job);
}

}  // namespace griffin
