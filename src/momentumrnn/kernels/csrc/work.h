// How a recurrence is shared out among threads.
#pragma once

#include <algorithm>
#include <vector>

#include "problem.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// One share: rows [row, row_end) of every step and blocks [block, block_end) of hidden units.
struct Share {
    Index row, row_end, block, block_end;

    // How many of the share's rows run at step t.
    Index running(const Rows& rows, Index t) const { return std::clamp(rows.running(t), row, row_end) - row; }
};

// The batch cut into `parts` ranges of rows that have about as many steps to do.
inline std::vector<Share> share_rows(const Rows& rows, int parts, Index blocks) {
    std::vector<Index> ends(1, 0);
    if (rows.sizes) {
        // Row r's length is the number of steps with more than r running.
        Index done = 0, length = rows.steps;
        for (Index r = 0; r < rows.batch; r++) {
            while (rows.sizes[length - 1] <= r) length--;
            done += length;
            while (done * parts >= rows.total() * static_cast<Index>(ends.size()) &&
                   static_cast<Index>(ends.size()) < parts)
                ends.push_back(r + 1);
        }
    } else {
        for (int p = 1; p < parts; p++) ends.push_back(rows.batch * p / parts);
    }
    ends.resize(static_cast<size_t>(parts), rows.batch);
    ends.push_back(rows.batch);
    std::vector<Share> shares;
    for (int p = 0; p < parts; p++) shares.push_back({ends[p], ends[p + 1], 0, blocks});
    return shares;
}

inline Share share_blocks(const Rows& rows, int member, int members, Index blocks) {
    return {0, rows.batch, blocks * member / members, blocks * (member + 1) / members};
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
