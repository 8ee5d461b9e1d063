// Work on the threads that torch already has.
//
// A second OpenMP runtime in one process fights the first for the cores, and new threads cost more than a
// small training step. So the runtime that torch loaded is found at run time and used through its C
// interface; where there is none, plain threads are started.
#pragma once

#include <atomic>
#include <functional>

namespace momentumrnn {

// Where the members of a team wait for each other.
struct Barrier {
    alignas(64) std::atomic<int> arrived{0};
    alignas(64) std::atomic<unsigned> round{0};
};

// One thread among those that work on the same thing at the same time.
struct Member {
    int id, members;
    Barrier* barrier;

    void wait() const;
};

// Runs body(part) for every part in [0, parts). How many threads share them is left open.
void parallel(int parts, const std::function<void(int)>& body);

// Runs body on every member of a team at once. The team may be smaller than wanted: a runtime gives what it
// has, and who waits for more hangs.
void team(int wanted, const std::function<void(const Member&)>& body);

// Tells a process that it was forked from one which had not loaded this.
void run_alone();

// The name of what runs the threads: "OpenMP" or "std::thread".
const char* threading();

}  // namespace momentumrnn
